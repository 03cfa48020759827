//! RFC 9001 appendix A, on every backend.

use super::{hex, open, seal};
use crate::base::Side;
use crate::crypto::backend::Backend;
use crate::crypto::{HeaderKey, PacketKey, Suite, initial_keys};
use crate::wire::quic::Version;

const DCID: &str = "8394c8f03e515708";

const CLIENT_CRYPTO: &str = "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e86804fe3a47f06a2b69484c00000413011302010000c00000 \
     0010000e00000b6578616d706c652e636f6dff01000100000a00080006001d0017001800100007000504616c706e000500050100000000 \
     003300260024001d00209370b2c9caa47fbabaf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b0003020304000d0010000e \
     0403050306030203080408050806002d00020101001c00024001003900320408ffffffffffffffff05048000ffff07048000ffff080110 \
     0104800075300901100f088394c8f03e51570806048000ffff";
const CLIENT_PACKET: &str = "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9bd8bab936b47d92ec356c0bab7df5976d27 \
     cd449f63300099f3991c260ec4c60d17b31f8429157bb35a1282a643a8d2262cad67500cadb8e7378c8eb7539ec4d4905fed1bee1fc8aa \
     fba17c750e2c7ace01e6005f80fcb7df621230c83711b39343fa028cea7f7fb5ff89eac2308249a02252155e2347b63d58c5457afd84d0 \
     5dfffdb20392844ae812154682e9cf012f9021a6f0be17ddd0c2084dce25ff9b06cde535d0f920a2db1bf362c23e596d11a4f5a6cf3948 \
     838a3aec4e15daf8500a6ef69ec4e3feb6b1d98e610ac8b7ec3faf6ad760b7bad1db4ba3485e8a94dc250ae3fdb41ed15fb6a8e5eba0fc \
     3dd60bc8e30c5c4287e53805db059ae0648db2f64264ed5e39be2e20d82df566da8dd5998ccabdae053060ae6c7b4378e846d29f37ed7b \
     4ea9ec5d82e7961b7f25a9323851f681d582363aa5f89937f5a67258bf63ad6f1a0b1d96dbd4faddfcefc5266ba6611722395c906556be \
     52afe3f565636ad1b17d508b73d8743eeb524be22b3dcbc2c7468d54119c7468449a13d8e3b95811a198f3491de3e7fe942b330407abf8 \
     2a4ed7c1b311663ac69890f4157015853d91e923037c227a33cdd5ec281ca3f79c44546b9d90ca00f064c99e3dd97911d39fe9c5d0b23a \
     229a234cb36186c4819e8b9c5927726632291d6a418211cc2962e20fe47feb3edf330f2c603a9d48c0fcb5699dbfe5896425c5bac4aee8 \
     2e57a85aaf4e2513e4f05796b07ba2ee47d80506f8d2c25e50fd14de71e6c418559302f939b0e1abd576f279c4b2e0feb85c1f28ff18f5 \
     8891ffef132eef2fa09346aee33c28eb130ff28f5b766953334113211996d20011a198e3fc433f9f2541010ae17c1bf202580f6047472f \
     b36857fe843b19f5984009ddc324044e847a4f4a0ab34f719595de37252d6235365e9b84392b061085349d73203a4a13e96f5432ec0fd4 \
     a1ee65accdd5e3904df54c1da510b0ff20dcc0c77fcb2c0e0eb605cb0504db87632cf3d8b4dae6e705769d1de354270123cb11450efc60 \
     ac47683d7b8d0f811365565fd98c4c8eb936bcab8d069fc33bd801b03adea2e1fbc5aa463d08ca19896d2bf59a071b851e6c239052172f \
     296bfb5e72404790a2181014f3b94a4e97d117b438130368cc39dbb2d198065ae3986547926cd2162f40a29f0c3c8745c0f50fba3852e5 \
     66d44575c29d39a03f0cda721984b6f440591f355e12d439ff150aab7613499dbd49adabc8676eef023b15b65bfc5ca06948109f23f350 \
     db82123535eb8a7433bdabcb909271a6ecbcb58b936a88cd4e8f2e6ff5800175f113253d8fa9ca8885c2f552e657dc603f252e1a8e308f \
     76f0be79e2fb8f5d5fbbe2e30ecadd220723c8c0aea8078cdfcb3868263ff8f0940054da48781893a7e49ad5aff4af300cd804a6b6279a \
     b3ff3afb64491c85194aab760d58a606654f9f4400e8b38591356fbf6425aca26dc85244259ff2b19c41b9f96f3ca9ec1dde434da7d2d3 \
     92b905ddf3d1f9af93d1af5950bd493f5aa731b4056df31bd267b6b90a079831aaf579be0a39013137aac6d404f518cfd46840647e78bf \
     e706ca4cf5e9c5453e9f7cfd2b8b4c8d169a44e55c88d4a9a7f9474241e221af44860018ab0856972e194cd934";
const SERVER_PAYLOAD: &str = "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200130100002e0033 \
     0024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304";
const SERVER_PACKET: &str = "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a5816b6394100f37a1c69797554780bb38cc5a99f5ede4c \
     f73c3ec2493a1839b3dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84022f8ef4cdd93795d77d06edbb7a \
     af2f58891850abbdca3d20398c276456cbc42158407dd074ee";

/// A sample of a protected packet and its inputs.
struct Vector {
    suite: Suite,
    key: &'static str,
    iv: &'static str,
    hp: &'static str,
    pn: u64,
    /// Before header protection.
    header: &'static str,
    payload: Vec<u8>,
    mask: &'static str,
    packet: &'static str,
}

/// RFC 9001 §A.2, §A.3 and §A.5.
fn vectors() -> [Vector; 3] {
    let mut client_payload = hex(CLIENT_CRYPTO);
    client_payload.resize(1162, 0);
    [
        Vector {
            suite: Suite::Aes128Gcm,
            key: "1f369613dd76d5467730efcbe3b1a22d",
            iv: "fa044b2f42a3fd3b46fb255c",
            hp: "9f50449e04a0e810283a1e9933adedd2",
            pn: 2,
            header: "c300000001088394c8f03e5157080000449e00000002",
            payload: client_payload,
            mask: "437b9aec36",
            packet: CLIENT_PACKET,
        },
        Vector {
            suite: Suite::Aes128Gcm,
            key: "cf3a5331653c364c88f0f379b6067e37",
            iv: "0ac1493ca1905853b0bba03e",
            hp: "c206b8d9b9f0f37644430b490eeaa314",
            pn: 1,
            header: "c1000000010008f067a5502a4262b50040750001",
            payload: hex(SERVER_PAYLOAD),
            mask: "2ec0d8356a",
            packet: SERVER_PACKET,
        },
        Vector {
            suite: Suite::ChaCha20Poly1305,
            key: "c6d98ff3441c3fe1b2182094f69caa2ed4b716b65488960a7a984979fb23e1c8",
            iv: "e0459b3474bdd0e44a41c144",
            hp: "25a282b9e82f06f21f488917a4fc8f1b73573685608597d0efcb076b0ab7a7a4",
            pn: 654_360_564,
            header: "4200bff4",
            payload: vec![1],
            mask: "aefefe7d03",
            packet: "4cfe4189655e5cd55c41f69080575d7999c25a5bfb",
        },
    ]
}

/// Applies a header protection mask (RFC 9001 §5.4.1).
fn mask_header(packet: &mut [u8], header_len: usize, mask: [u8; 5]) {
    let pn_len = usize::from(packet[0] & 3) + 1;
    packet[0] ^= mask[0] & if packet[0] & 0x80 != 0 { 0x0f } else { 0x1f };
    for (byte, mask) in packet[header_len - pn_len..header_len].iter_mut().zip(&mask[1..]) {
        *byte ^= mask;
    }
}

#[test]
fn every_backend_makes_the_packets_of_the_rfc() {
    for v in vectors() {
        let (header, wire) = (hex(v.header), hex(v.packet));
        let pn_offset = header.len() - usize::from(header[0] & 3) - 1;
        let sample = wire[pn_offset + 4..].first_chunk().unwrap();
        for backend in Backend::all() {
            let hp = HeaderKey::on(backend, v.suite, &hex(v.hp));
            assert_eq!(hp.mask(sample)[..], hex(v.mask));
            let key = PacketKey::on(backend, v.suite, &hex(v.key), &hex(v.iv).try_into().unwrap());
            let mut packet = seal(&key, v.pn, &header, &v.payload);
            mask_header(&mut packet, header.len(), hp.mask(sample));
            assert_eq!(packet, wire, "{backend:?}");
            assert_eq!(open(&key, v.pn, &header, &wire[header.len()..]).as_ref(), Some(&v.payload), "{backend:?}");
        }
    }
}

#[test]
fn initial_keys_are_those_of_the_rfc() {
    let [client_initial, server_initial, _] = vectors();
    let client = initial_keys(Version::V1, &hex(DCID), Side::Client);
    let server = initial_keys(Version::V1, &hex(DCID), Side::Server);
    for (v, keys) in
        [(&client_initial, [&client.local, &server.remote]), (&server_initial, [&server.local, &client.remote])]
    {
        let (header, wire) = (hex(v.header), hex(v.packet));
        let pn_offset = header.len() - usize::from(header[0] & 3) - 1;
        let sample = wire[pn_offset + 4..].first_chunk().unwrap();
        for keys in keys {
            assert_eq!(keys.header.mask(sample)[..], hex(v.mask));
            assert_eq!(open(&keys.packet, v.pn, &header, &wire[header.len()..]).as_ref(), Some(&v.payload));
        }
    }
}

/// The server's Initial packet of RFC 9369 §A.3.
#[test]
fn initial_packets_of_version_2_are_those_of_the_rfc() {
    let header = hex("d16b3343cf0008f067a5502a4262b50040750001");
    let payload = hex(
        "02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf73988cfc79825df566dc5430b9a045a1200130100002e0033\
         0024001d00209d3c940d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00020304",
    );
    let wire = hex(
        "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698baeea26b91eb761d9b89237bbf87263017915358230035\
         f7fd3945d88965cf17f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e42757507698075b2c984c707f0a0812d8cd5a6881eaf\
         21ceda98f4bd23f6fe1a3e2c43edd9ce7ca84bed8521e2e140",
    );
    let keys = initial_keys(Version::V2, &hex(DCID), Side::Server);
    let sample = wire[header.len() + 2..].first_chunk().unwrap();
    let mut packet = seal(&keys.local.packet, 1, &header, &payload);
    mask_header(&mut packet, header.len(), keys.local.header.mask(sample));
    assert_eq!(packet, wire);
}
