//! Replaces functions in the relocation table of one loaded library, without affecting others.

use std::ffi::{CStr, c_int, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{Elf64_Rela, Elf64_Sym, dl_phdr_info, size_t};

/// The name of a function that a library calls, and its replacement: a function of the same type that never unwinds.
pub(super) type Replacement = (&'static CStr, *const ());

/// Replaces the calls in the library whose file name starts with `library`.
///
/// Returns how many of the names were found; `None` if the library is not loaded.
///
/// # Safety
/// Every replacement has the type of the function it replaces and can be called in its place at any time.
pub(super) unsafe fn replace(library: &str, calls: &[Replacement]) -> Option<usize> {
    let mut search = Search { library, calls, found: None };
    // SAFETY: the callback has the type that is asked for, and `search` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(visit), (&raw mut search).cast()) };
    search.found
}

struct Search<'a> {
    library: &'a str,
    calls: &'a [Replacement],
    found: Option<usize>,
}

/// Visits one loaded object; ends the search at the right one.
unsafe extern "C" fn visit(info: *mut dl_phdr_info, _: size_t, search: *mut c_void) -> c_int {
    // SAFETY: the loader passes a valid object with a NUL-terminated name, and `replace` its search.
    let (info, search) = unsafe { (&*info, &mut *search.cast::<Search<'_>>()) };
    if info.dlpi_name.is_null() {
        return 0;
    }
    // SAFETY: as above.
    let path = unsafe { CStr::from_ptr(info.dlpi_name) }.to_bytes();
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    if !name.starts_with(search.library.as_bytes()) {
        return 0;
    }
    // SAFETY: a loaded object; libraries of DPDK stay loaded. The types are the caller's promise.
    search.found = Some(unsafe {
        Object::new(info).map_or(0, |o| search.calls.iter().filter(|(name, to)| o.replace(name, *to as usize)).count())
    });
    1
}

/// The parts of a loaded object's dynamic section that concern calls to other objects.
struct Object {
    base: usize,
    symbols: *const Elf64_Sym,
    strings: *const libc::c_char,
    tables: [(*const Elf64_Rela, usize); 2],
}

// From <elf.h>; the `libc` crate does not define them.
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
        // Some loaders leave these addresses relative to the base.
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

    /// Redirects this object's calls of `name` to `to`. Returns `false` if there are none.
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

    #[test]
    fn libraries_and_calls_are_found_by_name() {
        // SAFETY: nothing is replaced, since no library calls this function.
        let nobody = unsafe { replace("librte_eal.so", &[(c"gannet_no_such_function", std::ptr::null())]) };
        assert_eq!(nobody, Some(0));
        // SAFETY: as above.
        assert_eq!(unsafe { replace("libgannet_no_such_library", &[]) }, None);
    }
}
