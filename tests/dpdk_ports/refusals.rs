//! What cannot be opened, and what the error says about it.

use std::os::unix::net::UnixListener;

use gannet::dpdk::{Eal, EalConfig, PortError, PortProfile, available_drivers, plugin_dir};

use crate::support::*;

/// Opens what must not open; the message has all of `words`.
fn says(eal: &Eal, profile: &PortProfile, words: &[&str]) -> PortError {
    let error = refused(eal, profile);
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    error
}

#[test]
fn refusals_name_the_thing_and_the_remedy() {
    isolated("refusals::refusals_name_the_thing_and_the_remedy", || {
        let dir = scratch();
        let socket = path(dir.path(), "s");
        let eal = eal();
        for (profile_name, key) in [("memif", "devargs.socket"), ("vhost", "devargs.iface")] {
            let busy = UnixListener::bind(&socket).unwrap();
            let error = says(&eal, &profile(profile_name, &[(key, &socket)]), &[&socket, "in use", key]);
            assert!(matches!(error, PortError::SocketInUse { .. }));
            drop(busy);
            std::fs::remove_file(&socket).unwrap();
        }
        let client = profile("memif", &[("devargs.socket", &socket), ("devargs.role", "client")]);
        assert!(matches!(says(&eal, &client, &[&socket, "start the other side"]), PortError::NoServer { .. }));
        let guest = profile("virtio-user", &[("devargs.path", &socket)]);
        assert!(matches!(says(&eal, &guest, &[&socket]), PortError::NoServer { .. }));
        let nowhere = path(dir.path(), "no/s");
        says(&eal, &profile("memif", &[("devargs.socket", &nowhere)]), &["does not exist; create it"]);
        // With a receive buffer's room or less, newer drivers write beyond it.
        let small = profile("memif", &[("devargs.socket", &socket), ("bsize", "2048")]);
        says(&eal, &small, &["2048", "devargs.bsize=2304"]);
        // What only the driver can find wrong: its own words are in the message.
        let server = profile("memif", &[("devargs.socket", &socket)]);
        let first = open(&eal, &server);
        says(&eal, &server, &["net_memif", "id=0", "same id"]);
        drop(first);
        let file = path(dir.path(), "none.pcap");
        says(&eal, &profile("pcap", &[("devargs.rx_pcap", &file)]), &[&file, "No such file"]);
        says(&eal, &profile("ring", &[("queues", "99")]), &["net_ring", "at most 16 queues", "queues=16"]);
        says(&eal, &profile("ring", &[("mbufs", "9000000")]), &["9000000 buffers", "mbufs"]);
        // After all of that the process can still open a port.
        let (port, queue) = open(&eal, &profile("ring", &[]));
        drop(queue);
        assert_no_leak(&port);
    });
}

#[test]
fn refusals_of_pci_devices() {
    isolated("refusals::refusals_of_pci_devices", || {
        let absent = profile("e1000e", &[("device", "0000:ff:1f.7")]);
        let eal = eal_with(EalConfig::for_profiles(std::slice::from_ref(&absent)));
        says(&eal, &absent, &["0000:ff:1f.7", "net_e1000_em", "no such device"]);
        if std::path::Path::new("/sys/bus/pci/devices/0000:00:00.0").exists() {
            // The host bridge: present, and not for us.
            says(&eal, &profile("e1000e", &[("device", "00:00.0")]), &["0000:00:00.0", "bound"]);
        }
    });
}

#[test]
fn refusals_of_interfaces() {
    isolated("refusals::refusals_of_interfaces", || {
        let eal = eal();
        for name in ["af-packet", "af-xdp"] {
            let absent = profile(name, &[("devargs.iface", "gannet-none")]);
            match refused(&eal, &absent) {
                PortError::NoInterface { iface, .. } => assert_eq!(iface, "gannet-none"),
                PortError::Permission { capability, .. } => println!("without {capability}: only that was tested"),
                other => panic!("{other}"),
            }
        }
    });
}

#[test]
fn the_socket_of_a_dead_server_is_taken_over() {
    isolated("refusals::the_socket_of_a_dead_server_is_taken_over", || {
        let dir = scratch();
        let socket = path(dir.path(), "s");
        drop(UnixListener::bind(&socket).unwrap());
        assert!(std::path::Path::new(&socket).exists());
        let eal = eal();
        let (port, queue) = open(&eal, &profile("memif", &[("devargs.socket", &socket)]));
        assert!(!port.link_up());
        drop((queue, port));
        assert!(!std::path::Path::new(&socket).exists());
    });
}

#[test]
fn a_device_can_be_opened_again() {
    isolated("refusals::a_device_can_be_opened_again", || {
        let dir = scratch();
        let socket = path(dir.path(), "s");
        let eal = eal();
        for _ in 0..5 {
            let (port, queue) = open(&eal, &profile("memif", &[("devargs.socket", &socket)]));
            drop((port, queue));
            let (port, queue) = open(&eal, &profile("vhost", &[("devargs.iface", &socket)]));
            drop((port, queue));
            let (port, queue) = open(&eal, &profile("null", &[("devargs.no-rx", "false")]));
            drop((port, queue));
        }
    });
}

#[test]
fn drivers_are_listed() {
    isolated("refusals::drivers_are_listed", || {
        let drivers = available_drivers();
        let memif = drivers.iter().find(|d| d.name == "net_memif").expect("net_memif");
        assert!(memif.profiled && memif.problem.is_none() && memif.path.starts_with(plugin_dir()));
        assert!(drivers.iter().any(|d| !d.profiled));
        // Loading them all does not keep EAL from starting.
        drop(open(&eal(), &profile("ring", &[])));
    });
}
