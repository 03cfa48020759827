//! Finds libdpdk, generates the bindings and compiles the shim.

mod libclang;

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::exit;

use libclang::with_libclang;

/// The command that installs the dependencies on Debian and Ubuntu.
const PACKAGES: &str = "apt-get install libdpdk-dev libclang-dev pkg-config";
/// The DPDK libraries that are called directly. Drivers are plugins, which EAL loads at run time.
const LIBRARIES: [&str; 8] =
    ["rte_ethdev", "rte_mbuf", "rte_mempool", "rte_ring", "rte_net_ring", "rte_bus_vdev", "rte_eal", LOG];
/// A part of `rte_eal` before 23.11.
const LOG: &str = "rte_log";
/// The standard directories of the dynamic loader.
const STANDARD_DIRS: [&str; 6] = ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/usr/local/lib", "/usr/local/lib64"];

const FUNCTIONS: &str = "gannet_.*|rte_eal_(init|cleanup|hotplug_remove|get_runtime_dir|alarm_set)|rte_vdev_(init|uninit)|rte_version|rte_strerror\
    |rte_log_(set_global_level|set_level_pattern)|rte_thread_(register|unregister)|rte_lcore_id\
    |rte_pktmbuf_(pool_create|free|free_bulk|read)|rte_mempool_(free|avail_count|get_bulk|put_bulk)\
    |rte_ring_(create|init|get_memsize_elem|free|count|dequeue)|rte_malloc_socket|rte_free|rte_eth_from_rings\
    |rte_intr_(fd_get|instance_free|callback_register|callback_unregister|callback_unregister_pending)\
    |rte_extmem_(register|unregister)|rte_dev_dma_(map|unmap)\
    |rte_eth_(rx_burst|tx_burst|dev_get_port_by_name|dev_info_get|dev_configure|dev_adjust_nb_rx_tx_desc\
    |rx_queue_setup|tx_queue_setup|dev_start|dev_stop|dev_close|dev_set_mtu|dev_get_mtu|macaddr_get\
    |dev_default_mac_addr_set|promiscuous_enable|allmulticast_(enable|get)|dev_set_mc_addr_list|dev_vlan_filter\
    |dev_rx_intr_(enable|disable|ctl_q_get_fd)|stats_get|stats_reset\
    |xstats_get|xstats_get_names|dev_socket_id|dev_is_valid_port|dev_callback_(register|unregister)\
    |dev_rss_hash_conf_get|dev_rss_reta_query)|rte_dev_event_callback_(register|unregister)";
const TYPES: &str = "rte_(mbuf|mempool|ring|eth_conf|eth_dev_info|eth_stats|eth_xstat|eth_xstat_name\
    |eth_rxconf|eth_txconf|ether_addr|eth_rx_mq_mode|eth_rss_conf|eth_rss_reta_entry64|eth_event_type|dev_event_type)\
    |gannet_.*";
const VARS: &str = "GANNET_.*|RTE_ETH_NAME_MAX_LEN|RTE_MAX_LCORE|RTE_LOG_.*|RING_F_S[PC]_.*";

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=libclang.rs");
    println!("cargo:rerun-if-changed=shim");
    for variable in find_libclang::VARIABLES {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    let dpdk = probe();
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default());
    let flags = c_flags(&dpdk);
    generate(&flags, &out);
    compile(&flags, &out);
    link(&dpdk);
}

fn fail(message: &str) -> ! {
    eprintln!("error: dpdk-sys: {message}");
    exit(1)
}

fn probe() -> pkg_config::Library {
    let found = pkg_config::Config::new().atleast_version("22.11").cargo_metadata(false).probe("libdpdk");
    found.unwrap_or_else(|e| {
        fail(&format!(
            "pkg-config: {e}\n\nDPDK 22.11 or newer was not found. Install it with `{PACKAGES}`, point PKG_CONFIG_PATH \
             at the directory with libdpdk.pc,\nor build without ports: `--no-default-features`."
        ))
    })
}

/// Include paths, `-include rte_config.h` and `-march`, as pkg-config gives them.
fn c_flags(dpdk: &pkg_config::Library) -> Vec<String> {
    let raw = std::process::Command::new(env::var_os("PKG_CONFIG").unwrap_or_else(|| "pkg-config".into()))
        .args(["--cflags", "libdpdk"])
        .output()
        .ok()
        .filter(|o| o.status.success());
    match raw {
        Some(o) => String::from_utf8_lossy(&o.stdout).split_whitespace().map(str::to_owned).collect(),
        None => dpdk.include_paths.iter().map(|p| format!("-I{}", p.display())).collect(),
    }
}

fn generate(flags: &[String], out: &Path) {
    let builder = with_libclang(bindgen::Builder::default())
        .header("shim/wrapper.h")
        .clang_args(flags)
        .clang_arg("-DALLOW_EXPERIMENTAL_API")
        .allowlist_function(FUNCTIONS)
        .allowlist_type(TYPES)
        .allowlist_var(VARS)
        // Packed structs that contain aligned ones cannot be expressed in Rust.
        .opaque_type(
            "rte_mbuf|rte_mempool|rte_ring|rte_device|rte_arp_.*|rte_l2tpv2_.*|rte_gtp_.*|rte_ipv[46]_.*|rte_flow_.*",
        )
        .wrap_static_fns(true)
        .wrap_static_fns_path(out.join("statics"))
        .derive_default(false)
        .derive_debug(false)
        .generate_comments(false)
        .layout_tests(true);
    // Without libclang, bindgen panics instead of returning an error.
    let Ok(bindings) = catch_unwind(AssertUnwindSafe(|| builder.generate())) else {
        fail(&format!("libclang, which bindgen needs, was not found; `{PACKAGES}`, or set LIBCLANG_PATH"));
    };
    let bindings =
        bindings.unwrap_or_else(|e| fail(&format!("bindgen could not read the DPDK headers; `{PACKAGES}`: {e}")));
    if let Err(e) = bindings.write_to_file(out.join("bindings.rs")) {
        fail(&format!("cannot write the bindings to {}: {e}", out.display()));
    }
}

fn compile(flags: &[String], out: &Path) {
    let mut build = cc::Build::new();
    // Always optimised: these are the burst functions and the mempool fast path.
    build.opt_level(3).warnings(false).define("ALLOW_EXPERIMENTAL_API", None);
    // The generated wrappers include the header by the path that bindgen was given.
    build.include(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    for flag in flags {
        build.flag(flag);
    }
    build.file("shim/shim.c").file(out.join("statics.c"));
    if let Err(e) = build.try_compile("gannet_dpdk_shim") {
        fail(&format!("the C shim does not compile; `apt-get install build-essential libdpdk-dev`: {e}"));
    }
}

/// Links the libraries and passes what was found to dependents (DEP_GANNET_DPDK_*).
fn link(dpdk: &pkg_config::Library) {
    let lib_dir = pkg_config::get_variable("libdpdk", "libdir").unwrap_or_default();
    println!("cargo:rustc-link-search=native={lib_dir}");
    let has_log = dpdk.libs.iter().any(|library| library == LOG);
    for library in LIBRARIES.into_iter().filter(|library| *library != LOG || has_log) {
        println!("cargo:rustc-link-lib=dylib={library}");
    }
    let standard = STANDARD_DIRS.iter().any(|d| lib_dir == *d)
        || env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|a| {
            lib_dir == format!("/usr/lib/{a}-linux-gnu") || lib_dir == format!("/usr/local/lib/{a}-linux-gnu")
        });
    if !standard {
        println!("cargo:rpath={lib_dir}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib_dir}");
    }
    let plugins = plugin_dir(Path::new(&lib_dir), &dpdk.version);
    println!("cargo:version={}", dpdk.version);
    println!("cargo:plugin_dir={}", plugins.display());
    println!("cargo:pmds={}", net_drivers(&plugins).join(","));
    println!("cargo:rustc-env=GANNET_DPDK_VERSION={}", dpdk.version);
    println!("cargo:rustc-env=GANNET_DPDK_PLUGIN_DIR={}", plugins.display());
}

/// `<libdir>/dpdk/pmds-<abi>`; pkg-config names it as `driverdir` in newer releases only.
fn plugin_dir(lib_dir: &Path, version: &str) -> PathBuf {
    if let Ok(dir) = pkg_config::get_variable("libdpdk", "driverdir")
        && !dir.is_empty()
    {
        return PathBuf::from(dir);
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(lib_dir.join("dpdk"))
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.path())).collect())
        .unwrap_or_default();
    found.retain(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("pmds-")));
    // ABI 23 is release 22.11: the ABI number is the year of the LTS after it.
    let abi = version.split('.').next().and_then(|y| y.parse::<u32>().ok()).map_or(0, |y| y + 1);
    let exact = found.iter().find(|p| p.to_string_lossy().ends_with(&format!("pmds-{abi}.0"))).cloned();
    exact.or_else(|| found.into_iter().max()).unwrap_or_default()
}

fn net_drivers(plugins: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(plugins)
        .map(|entries| entries.filter_map(|e| e.ok()?.file_name().into_string().ok()).collect())
        .unwrap_or_default();
    names.retain(|n| n.starts_with("librte_net_") && n.ends_with(".so"));
    for name in &mut names {
        *name = name.trim_start_matches("librte_").trim_end_matches(".so").to_owned();
    }
    names.sort();
    names
}
