//! Certificates of clients, and several of a server, with quinn.

use crate::peers::Peer;
use crate::peers::gannet::{Gannet, Trust, url};
use crate::peers::pki::Pki;
use crate::require_root;
use crate::scene::Scene;

/// A server with two certificates that wants clients to have one shows each to those who ask for its name, and refuses
/// clients that have none or a foreign one.
#[test]
fn serve_with_names_and_certificates_of_clients() {
    require_root!();
    let scene = Scene::gannet_serves(1500);
    let sample = scene.sample("file", 1000);
    let named = Pki::with_names(scene.dir.path(), "named", &["b.test"]);
    let clients = Pki::with_names(scene.dir.path(), "clients", &["client.test"]);
    let server = Gannet::serve(scene.server(), &scene.pki.cert, &scene.pki.key, &scene.root())
        .path("--cert", &named.cert)
        .path("--key", &named.key)
        .path("--client-ca", &clients.ca)
        .args(["--unknown-name", "refuse"])
        .ready();
    let get = |name: Option<&str>, trusted: &Pki, identity: Option<&Pki>| {
        let mut options = scene.getting(scene.server().v4, &["/file"]);
        options.ca.clone_from(&trusted.ca);
        options.name = name.map(str::to_owned);
        options.identity = identity.map(|pki| [pki.cert.clone(), pki.key.clone()]);
        Peer::Quinn.get(scene.client(), options).wait()
    };
    for (name, trusted) in [(None, &scene.pki), (Some("gannet.test"), &scene.pki), (Some("b.test"), &named)] {
        get(name, trusted, Some(&clients)).expect_success();
        sample.assert_same(&scene.out().join("file"));
    }
    get(Some("c.test"), &scene.pki, Some(&clients)).expect_failure();
    get(None, &scene.pki, None).expect_failure();
    get(None, &scene.pki, Some(&named)).expect_failure();
    server.stop("TERM").expect_success();
}

/// `gannet get` shows its certificate to a server that wants one, over TLS without post-quantum groups as well.
#[test]
fn get_with_a_certificate() {
    require_root!();
    let scene = Scene::gannet_gets(1500);
    let sample = scene.sample("file", 1000);
    let clients = Pki::with_names(scene.dir.path(), "clients", &["client.test"]);
    let mut options = scene.serving(scene.server().v4);
    options.client_ca = Some(clients.ca.clone());
    let server = Peer::Quinn.serve(scene.server(), options);
    let got = scene.out().join("got");
    let urls = [url(scene.server().v4, "/file")];
    let get = || Gannet::get(scene.client(), Trust::Ca(&scene.pki.ca), &got, &urls);
    for group in ["x25519mlkem768", "x25519", "secp256r1"] {
        let get = get().path("--cert", &clients.cert).path("--key", &clients.key).args(["--group", group]);
        get.run().expect_success();
        sample.assert_same(&got);
    }
    let refused = get().run().expect_failure();
    refused.expect_message(&["certificate"]);
    assert_eq!(server.lines("connection ").len(), 3);
}
