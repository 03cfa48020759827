//! Keeps the shared memory of a memif port mapped while a queue works in it.
//!
//! DPDK's memif driver unmaps its regions on the interrupt thread as soon as the peer goes, without waiting for the
//! thread that is inside a burst just then: a server crashes when a client leaves at the wrong moment. The driver
//! clears its "connected" flag before, which every burst checks first. So it is enough to let the bursts that have
//! already begun finish before anything is unmapped. [`install`] puts [`unmap`] in the place of `munmap` in the
//! driver's own relocation table (and nobody else's), and a queue marks its bursts with a [`Gate`].
//!
//! A burst costs two plain stores. The side that unmaps pays for the ordering, with `membarrier(2)`.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering, compiler_fence};
use std::sync::{Mutex, OnceLock, PoisonError};

use libc::{Elf64_Rela, Elf64_Sym, dl_phdr_info, size_t};

/// One queue's bursts: odd inside of one, even outside. On a cache line of its own.
#[repr(align(64))]
struct Epoch(AtomicU64);

struct Registry {
    all: Vec<&'static Epoch>,
    free: Vec<&'static Epoch>,
}

static REGISTRY: Mutex<Registry> = Mutex::new(Registry { all: Vec::new(), free: Vec::new() });

/// Marks the bursts of one queue.
pub(super) struct Gate(&'static Epoch);

impl Gate {
    pub(super) fn new() -> Self {
        let mut registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(epoch) = registry.free.pop() {
            return Self(epoch);
        }
        // Never freed, since `unmap` may look at it at any time; reused instead.
        let epoch: &'static Epoch = Box::leak(Box::new(Epoch(AtomicU64::new(0))));
        registry.all.push(epoch);
        Self(epoch)
    }

    /// Runs `burst`, which does not unwind.
    #[inline]
    pub(super) fn inside<T>(&mut self, burst: impl FnOnce() -> T) -> T {
        let now = self.0.0.load(Ordering::Relaxed);
        self.0.0.store(now + 1, Ordering::Relaxed);
        // The processor may still delay the store; `membarrier` on the other side makes up for that.
        compiler_fence(Ordering::SeqCst);
        let result = burst();
        self.0.0.store(now + 2, Ordering::Release);
        result
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        REGISTRY.lock().unwrap_or_else(PoisonError::into_inner).free.push(self.0);
    }
}

/// `munmap` as the driver sees it: waits for the bursts that have begun.
unsafe extern "C" fn unmap(addr: *mut c_void, len: size_t) -> c_int {
    wait();
    // SAFETY: the driver's own request, passed on.
    unsafe { libc::munmap(addr, len) }
}

/// Returns when every burst that had begun at the time of the call is over.
fn wait() {
    barrier();
    let registry = REGISTRY.lock().unwrap_or_else(PoisonError::into_inner);
    for epoch in &registry.all {
        let seen = epoch.0.load(Ordering::Acquire);
        // On a queue's own thread, outside of its bursts, this is even: it never waits for itself.
        while seen % 2 == 1 && epoch.0.load(Ordering::Acquire) == seen {
            std::thread::yield_now();
        }
    }
}

/// Stores that other threads made before are visible to this one, and the other way round.
fn barrier() {
    // SAFETY: takes no pointers.
    if unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) } != 0 {
        // A kernel without it: no store stays in a store buffer for this long.
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

/// Guards the memif driver, once per process; `false` when its `munmap` was not found.
pub(super) fn install() -> bool {
    static DONE: OnceLock<bool> = OnceLock::new();
    *DONE.get_or_init(|| {
        let mut found = false;
        // SAFETY: the callback has the type that is asked for, and `found` outlives the call.
        unsafe {
            libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0);
            libc::dl_iterate_phdr(Some(visit), (&raw mut found).cast());
        }
        found
    })
}

/// Looks at one loaded object; ends the search at the driver.
unsafe extern "C" fn visit(info: *mut dl_phdr_info, _: size_t, found: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid object with a NUL-terminated name, and `install` its flag.
    unsafe {
        let info = &*info;
        if info.dlpi_name.is_null()
            || !CStr::from_ptr(info.dlpi_name).to_bytes().windows(16).any(|w| w == b"librte_net_memif")
        {
            return 0;
        }
        *found.cast::<bool>() = Object::new(info).is_some_and(|o| o.replace(c"munmap", unmap as *const () as usize));
        1
    }
}

/// The dynamic section of a loaded object, as far as calls to other objects go.
struct Object {
    base: usize,
    symbols: *const Elf64_Sym,
    strings: *const libc::c_char,
    tables: [(*const Elf64_Rela, usize); 2],
}

// Of <elf.h>; the `libc` crate has no names for them.
const DT_PLTRELSZ: u64 = 2;
const DT_STRTAB: u64 = 5;
const DT_SYMTAB: u64 = 6;
const DT_RELA: u64 = 7;
const DT_RELASZ: u64 = 8;
const DT_JMPREL: u64 = 23;
#[cfg(target_arch = "x86_64")]
const SLOTS: [u32; 2] = [6, 7];
#[cfg(target_arch = "aarch64")]
const SLOTS: [u32; 2] = [1025, 1026];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const SLOTS: [u32; 2] = [u32::MAX, u32::MAX];

impl Object {
    /// # Safety
    /// `info` describes a loaded object that stays loaded.
    unsafe fn new(info: &dl_phdr_info) -> Option<Self> {
        let base = info.dlpi_addr as usize;
        // SAFETY: the loader's own table of program headers.
        let headers = unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) };
        let dynamic = headers.iter().find(|h| h.p_type == libc::PT_DYNAMIC)?;
        let mut entry = (base + dynamic.p_vaddr as usize) as *const [u64; 2];
        let mut values = [0usize; 24];
        // SAFETY: the dynamic section, which ends with a zero tag.
        unsafe {
            while (*entry)[0] != 0 {
                let [tag, value] = *entry;
                if let Some(slot) = values.get_mut(tag as usize) {
                    *slot = value as usize;
                }
                entry = entry.add(1);
            }
        }
        // Some loaders leave addresses in there relative to the base.
        let address = |tag: u64| match values[tag as usize] {
            value if value < base => value + base,
            value => value,
        };
        let count = |tag: u64| values[tag as usize] / size_of::<Elf64_Rela>();
        (values[DT_SYMTAB as usize] != 0 && values[DT_STRTAB as usize] != 0).then(|| Self {
            base,
            symbols: address(DT_SYMTAB) as *const _,
            strings: address(DT_STRTAB) as *const _,
            tables: [
                (address(DT_JMPREL) as *const _, count(DT_PLTRELSZ)),
                (address(DT_RELA) as *const _, count(DT_RELASZ)),
            ],
        })
    }

    /// Sends this object's calls of `name` to `to`. `false` when it makes none.
    ///
    /// # Safety
    /// `to` is a function of the same type that lives as long as the object.
    unsafe fn replace(&self, name: &CStr, to: usize) -> bool {
        let mut replaced = false;
        for (table, count) in self.tables {
            for i in 0..count {
                // SAFETY: `count` relocations of this table; their symbols and names are in its own tables.
                unsafe {
                    let relocation = &*table.add(i);
                    let symbol = (relocation.r_info >> 32) as usize;
                    if !SLOTS.contains(&(relocation.r_info as u32)) || symbol == 0 {
                        continue;
                    }
                    let text = self.strings.add((*self.symbols.add(symbol)).st_name as usize);
                    if CStr::from_ptr(text) == name {
                        replaced |= write_slot(self.base + relocation.r_offset as usize, to);
                    }
                }
            }
        }
        replaced
    }
}

/// Writes a slot of a relocation table, which may be read-only by now.
///
/// # Safety
/// `slot` is a relocated slot of a loaded object, and `to` fits what its callers expect.
unsafe fn write_slot(slot: usize, to: usize) -> bool {
    // SAFETY: no memory is touched by this call.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
    let start = (slot & !(page - 1)) as *mut c_void;
    // SAFETY: the page of a slot, which is data of a loaded object. It stays writable: whether it was before
    // depends on how the driver was linked, and neighbours may be written lazily by the loader.
    unsafe {
        if libc::mprotect(start, page, libc::PROT_READ | libc::PROT_WRITE) != 0 {
            return false;
        }
        (*(slot as *const AtomicU64)).store(to as u64, Ordering::Release);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    #[test]
    fn waits_for_bursts_that_have_begun_and_for_no_others() {
        let (inside, release, passed) = (AtomicBool::new(false), AtomicBool::new(false), AtomicBool::new(false));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut gate = Gate::new();
                gate.inside(|| {
                    inside.store(true, Ordering::SeqCst);
                    while !release.load(Ordering::SeqCst) {
                        std::thread::yield_now();
                    }
                    assert!(!passed.load(Ordering::SeqCst), "unmapped under a running burst");
                });
                // The next burst usually begins after, and then nobody waits for it. A waiter that the scheduler
                // kept from starting until now may wait for it rightly: so it ends by itself.
                gate.inside(|| {
                    for _ in 0..100_000 {
                        if passed.load(Ordering::SeqCst) {
                            break;
                        }
                        std::thread::yield_now();
                    }
                });
            });
            while !inside.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            scope.spawn(|| {
                wait();
                passed.store(true, Ordering::SeqCst);
            });
            for _ in 0..1000 {
                std::thread::yield_now();
            }
            release.store(true, Ordering::SeqCst);
        });
        // Outside of all bursts it returns at once.
        let _idle = Gate::new();
        wait();
    }

    #[test]
    fn gates_are_reused() {
        let address = |g: &Gate| std::ptr::from_ref(g.0);
        let first = Gate::new();
        let (at, second) = (address(&first), Gate::new());
        assert_ne!(at, address(&second));
        drop(first);
        let held: Vec<Gate> = (0..8).map(|_| Gate::new()).collect();
        assert!(held.iter().any(|g| address(g) == at));
    }

    #[test]
    fn the_driver_is_found_and_its_calls_are_replaced() {
        unsafe extern "C" fn absent(info: *mut dl_phdr_info, _: size_t, found: *mut c_void) -> c_int {
            // SAFETY: as in `visit`; a name that no object calls.
            unsafe {
                let object = Object::new(&*info);
                *found.cast::<bool>() |= object.is_some_and(|o| o.replace(c"gannet_no_such_function", 0));
                0
            }
        }
        let mut found = false;
        // SAFETY: as in `install`.
        unsafe { libc::dl_iterate_phdr(Some(absent), (&raw mut found).cast()) };
        assert!(!found);
        let drivers = crate::dpdk::available_drivers();
        assert!(drivers.iter().any(|d| d.name == "net_memif" && d.problem.is_none()), "memif has to be loaded");
        assert!(install());
    }
}
