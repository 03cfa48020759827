use super::fields::Malformed::{self, *};
use super::*;
use crate::wire::h3::error::{Code, Scope};
use crate::wire::h3::field::Field;
use crate::wire::h3::priority::Priority;
use proptest::prelude::*;

type Lines<'a> = &'a [(&'a str, &'a str)];

/// A request that is well formed, but for one thing.
const GET: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":authority", "a.test"), (":path", "/")];

fn bytes<'a>(lines: &[(&'a str, &'a str)]) -> Vec<Field<'a>> {
    lines.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
}

fn check_request<'a>(lines: Lines<'a>) -> Result<RequestHead<'a>, Malformed> {
    let mut check = RequestCheck::new(Limits::default(), true);
    bytes(lines).into_iter().try_for_each(|field| check.add(field))?;
    check.finish()
}

fn check_response(lines: Lines<'_>) -> Result<ResponseHead, Malformed> {
    let mut check = ResponseCheck::new(Limits::default());
    bytes(lines).into_iter().try_for_each(|field| check.add(field))?;
    check.finish()
}

fn check_trailers(lines: Lines<'_>) -> Result<(), Malformed> {
    let mut check = TrailersCheck::new(Limits::default());
    bytes(lines).into_iter().try_for_each(|field| check.add(field))
}

/// A GET request with more fields.
fn get_with<'a>(more: Lines<'a>) -> Result<(), Malformed> {
    let lines: Vec<_> = GET.iter().copied().chain(more.iter().copied()).collect();
    let mut check = RequestCheck::new(Limits::default(), true);
    bytes(&lines).into_iter().try_for_each(|field| check.add(field))?;
    check.finish().map(|_| ())
}

#[test]
fn malformed_fields_are_refused_everywhere() {
    let cases: [(&str, (&str, &str), Malformed); 20] = [
        ("upper case", ("Accept", "a"), Name),
        ("upper case at the end", ("accepT", "a"), Name),
        ("empty name", ("", "a"), Name),
        ("space in a name", ("a b", "a"), Name),
        ("colon in a name", ("a:b", "a"), Name),
        ("NUL in a name", ("a\0", "a"), Name),
        ("line feed in a name", ("a\n", "a"), Name),
        ("not ASCII in a name", ("\u{e9}", "a"), Name),
        ("NUL in a value", ("a", "a\0b"), Value),
        ("line feed in a value", ("a", "a\nb"), Value),
        ("carriage return in a value", ("a", "a\rb"), Value),
        ("delete in a value", ("a", "a\x7fb"), Value),
        ("space in front", ("a", " b"), Value),
        ("space behind", ("a", "b "), Value),
        ("tab behind", ("a", "b\t"), Value),
        ("connection", ("connection", "close"), Connection),
        ("keep-alive", ("keep-alive", "timeout=5"), Connection),
        ("proxy-connection", ("proxy-connection", "close"), Connection),
        ("transfer-encoding", ("transfer-encoding", "chunked"), Connection),
        ("upgrade", ("upgrade", "h2c"), Connection),
    ];
    for (what, line, expected) in cases {
        assert_eq!(get_with(&[line]), Err(expected), "{what}, in a request");
        assert_eq!(check_response(&[(":status", "200"), line]), Err(expected), "{what}, in a response");
        assert_eq!(check_trailers(&[line]), Err(expected), "{what}, in trailers");
    }
    for te in ["gzip", "trailers, gzip", "", "trailers;q=1"] {
        assert_eq!(get_with(&[("te", te)]), Err(Te), "{te}");
    }
    assert_eq!(get_with(&[("te", "trailers")]), Ok(()));
    assert_eq!(check_response(&[(":status", "200"), ("te", "trailers")]), Err(Te));
    assert_eq!(check_trailers(&[("te", "trailers")]), Err(Te));
}

#[test]
fn malformed_requests_are_refused() {
    const M: (&str, &str) = GET[0];
    const S: (&str, &str) = GET[1];
    const A: (&str, &str) = GET[2];
    const P: (&str, &str) = GET[3];
    const CONNECT: (&str, &str) = (":method", "CONNECT");
    const WS: (&str, &str) = (":protocol", "websocket");
    let cases: &[(&str, Lines<'_>, Malformed)] = &[
        ("nothing", &[], Missing),
        ("no method", &[S, A, P], Missing),
        ("no scheme", &[M, A, P], Missing),
        ("no path", &[M, S, A], Missing),
        ("no authority", &[M, S, P], Authority),
        ("method twice", &[M, M, S, A, P], Duplicate),
        ("scheme twice", &[M, S, S, A, P], Duplicate),
        ("authority twice", &[M, S, A, A, P], Duplicate),
        ("path twice", &[M, S, A, P, (":path", "/b")], Duplicate),
        ("protocol twice", &[CONNECT, S, A, P, WS, WS], Duplicate),
        ("status in a request", &[M, S, A, P, (":status", "200")], Undefined),
        ("unknown pseudo-header", &[M, S, A, P, (":color", "red")], Undefined),
        ("pseudo-header without a name", &[M, S, A, P, (":", "a")], Undefined),
        ("pseudo-header in upper case", &[(":Method", "GET"), S, A, P], Undefined),
        ("pseudo-header behind a field", &[M, S, A, ("accept", "a"), P], Order),
        ("all behind a field", &[("accept", "a"), M, S, A, P], Order),
        ("empty method", &[(":method", ""), S, A, P], Method),
        ("method with a space", &[(":method", "GET /"), S, A, P], Method),
        ("empty scheme", &[M, (":scheme", ""), A, P], Scheme),
        ("scheme with a colon", &[M, (":scheme", "https:"), A, P], Scheme),
        ("scheme that begins with a digit", &[M, (":scheme", "1http"), A, P], Scheme),
        ("empty authority", &[M, S, (":authority", ""), P], Authority),
        ("user information", &[M, S, (":authority", "u:p@a.test"), P], Authority),
        ("authority with a path", &[M, S, (":authority", "a.test/b"), P], Authority),
        ("authority with a space", &[M, S, (":authority", "a test"), P], Authority),
        ("empty Host", &[M, S, P, ("host", "")], Authority),
        ("Host that differs", &[M, S, A, P, ("host", "b.test")], Host),
        ("Host twice", &[M, S, P, ("host", "a.test"), ("host", "a.test")], Host),
        ("empty path", &[M, S, A, (":path", "")], Path),
        ("empty path for http", &[M, (":scheme", "http"), A, (":path", "")], Path),
        ("path without a slash", &[M, S, A, (":path", "a")], Path),
        ("URI as path", &[M, S, A, (":path", "https://a.test/")], Path),
        ("asterisk without OPTIONS", &[M, S, A, (":path", "*")], Path),
        ("path with a space", &[M, S, A, (":path", "/a b")], Path),
        ("path with a fragment", &[M, S, A, (":path", "/a#b")], Path),
        ("path with a line feed", &[M, S, A, (":path", "/a\nb")], Value),
        ("CONNECT with a scheme", &[CONNECT, S, (":authority", "a.test:1")], Surplus),
        ("CONNECT with a path", &[CONNECT, P, (":authority", "a.test:1")], Surplus),
        ("CONNECT without authority", &[CONNECT], Missing),
        ("CONNECT with Host alone", &[CONNECT, ("host", "a.test:1")], Missing),
        ("CONNECT without port", &[CONNECT, A], Authority),
        ("CONNECT with empty port", &[CONNECT, (":authority", "a.test:")], Authority),
        ("protocol without CONNECT", &[M, S, A, P, WS], Surplus),
        ("extended CONNECT without scheme", &[CONNECT, A, P, WS], Missing),
        ("extended CONNECT without path", &[CONNECT, S, A, WS], Missing),
        ("extended CONNECT without authority", &[CONNECT, S, P, WS], Missing),
        ("extended CONNECT with Host alone", &[CONNECT, S, P, WS, ("host", "a.test")], Missing),
        ("empty protocol", &[CONNECT, S, A, P, (":protocol", "")], Protocol),
        ("protocol that is no token", &[CONNECT, S, A, P, (":protocol", "a b")], Protocol),
        ("Content-Length with a sign", &[M, S, A, P, ("content-length", "+1")], ContentLength),
        ("negative Content-Length", &[M, S, A, P, ("content-length", "-1")], ContentLength),
        ("empty Content-Length", &[M, S, A, P, ("content-length", "")], ContentLength),
        ("Content-Length as a list", &[M, S, A, P, ("content-length", "5, 5")], ContentLength),
        ("Content-Length of 2^64", &[M, S, A, P, ("content-length", "18446744073709551616")], ContentLength),
        ("Content-Lengths that differ", &[M, S, A, P, ("content-length", "1"), ("content-length", "2")], ContentLength),
        (
            "capsules with Content-Length",
            &[CONNECT, S, A, P, WS, ("capsule-protocol", "?1"), ("content-length", "1")],
            Capsules,
        ),
        (
            "capsules with Content-Type",
            &[CONNECT, S, A, P, WS, ("content-type", "a/b"), ("capsule-protocol", "?1;a=b")],
            Capsules,
        ),
    ];
    for (what, lines, expected) in cases {
        assert_eq!(check_request(lines), Err(*expected), "{what}");
        let error = expected.error();
        assert_eq!((error.code, error.scope), (Code::H3_MESSAGE_ERROR, Scope::Stream), "{what}");
    }
    let mut check = RequestCheck::new(Limits::default(), false);
    let refused = bytes(&[CONNECT, S, A, P, WS]).into_iter().try_for_each(|field| check.add(field));
    assert_eq!(refused, Err(Undefined), ":protocol that was not enabled");
}

#[test]
fn malformed_responses_and_trailers_are_refused() {
    const OK: (&str, &str) = (":status", "200");
    let cases: &[(&str, Lines<'_>, Malformed)] = &[
        ("nothing", &[], Missing),
        ("no status", &[("server", "a")], Missing),
        ("status twice", &[OK, OK], Duplicate),
        ("status behind a field", &[("server", "a"), OK], Order),
        ("status behind a field, again", &[OK, ("server", "a"), OK], Order),
        ("method in a response", &[OK, (":method", "GET")], Undefined),
        ("path in a response", &[(":path", "/"), OK], Undefined),
        ("unknown pseudo-header", &[OK, (":color", "red")], Undefined),
        ("empty status", &[(":status", "")], Status),
        ("two digits", &[(":status", "20")], Status),
        ("four digits", &[(":status", "2000")], Status),
        ("letters", &[(":status", "2OO")], Status),
        ("sign", &[(":status", "+20")], Status),
        ("below 100", &[(":status", "099")], Status),
        ("switching protocols", &[(":status", "101")], Status),
        ("reason phrase", &[(":status", "200 OK")], Status),
        ("Content-Length as a list", &[OK, ("content-length", "5,5")], ContentLength),
        ("Content-Lengths that differ", &[OK, ("content-length", "5"), ("content-length", "6")], ContentLength),
        ("capsules with 204", &[(":status", "204"), ("capsule-protocol", "?1")], Capsules),
        ("capsules with 205", &[(":status", "205"), ("capsule-protocol", "?1")], Capsules),
        ("capsules with 206", &[(":status", "206"), ("capsule-protocol", "?1")], Capsules),
        ("capsules with content", &[OK, ("capsule-protocol", "?1"), ("content-length", "0")], Capsules),
    ];
    for (what, lines, expected) in cases {
        assert_eq!(check_response(lines), Err(*expected), "{what}");
    }
    for line in [OK, (":method", "GET"), (":path", "/"), (":", ""), (":color", "red")] {
        assert_eq!(check_trailers(&[line]), Err(Undefined), "{line:?} in trailers");
        assert_eq!(check_trailers(&[("a", "b"), line]), Err(Undefined), "{line:?} in trailers");
    }
    assert_eq!(check_trailers(&[("a", "b"), ("content-length", "x")]), Ok(()), "says nothing there");
}

#[test]
fn well_formed_requests_are_read() {
    let mut lines = GET.to_vec();
    lines.extend([
        ("host", "a.test"),
        ("content-length", "10"),
        ("content-length", "010"),
        ("priority", "u=1"),
        ("priority", "i"),
        ("expect", "100-Continue"),
        ("te", "Trailers"),
        ("cookie", "a"),
        ("cookie", "b"),
        ("x", "\u{e9}\ttab"),
        ("empty", ""),
    ]);
    let expected = RequestHead {
        method: b"GET",
        scheme: b"https",
        authority: b"a.test",
        path: b"/",
        protocol: None,
        content_length: Some(10),
        priority: Priority { urgency: Some(1), incremental: Some(true) },
        expect_continue: true,
        capsule_protocol: false,
    };
    assert_eq!(check_request(&lines), Ok(expected));

    let host = check_request(&[GET[0], GET[1], GET[3], ("host", "b.test")]).unwrap();
    assert_eq!(host.authority, b"b.test", "Host instead of :authority");
    let good: [Lines<'_>; 6] = [
        &[(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")],
        &[(":method", "CONNECT"), (":authority", "[::1]:443")],
        &[(":method", "CONNECT"), GET[1], GET[2], GET[3], (":protocol", "webtransport-h3"), ("capsule-protocol", "?1")],
        &[GET[0], (":scheme", "HTTP"), GET[2], (":path", "/a?b=%20&c")],
        &[GET[3], GET[2], GET[1], GET[0]],
        &[GET[0], (":scheme", "urn"), (":path", "")],
    ];
    for lines in good {
        assert!(check_request(lines).is_ok(), "{lines:?}");
    }
    let ignored = [("priority", "u=1,"), ("priority", "i"), ("capsule-protocol", "?1"), ("capsule-protocol", "?1")];
    let lines: Vec<_> = GET.into_iter().chain(ignored).collect();
    let head = check_request(&lines).unwrap();
    assert_eq!((head.priority, head.capsule_protocol), (Priority::default(), false), "no Dictionary, no Boolean");
}

#[test]
fn well_formed_responses_are_read() {
    let lines = [(":status", "206"), ("content-length", "5"), ("priority", "u=0")];
    let expected = ResponseHead {
        status: 206,
        content_length: Some(5),
        priority: Priority { urgency: Some(0), incremental: None },
        capsule_protocol: false,
    };
    assert_eq!(check_response(&lines), Ok(expected));
    for status in (100..=999).filter(|status| *status != 101) {
        let text = status_text(status);
        let head = check_response(&[(":status", str::from_utf8(&text).unwrap())]).unwrap();
        assert_eq!((head.status, head.is_interim()), (status, status < 200));
    }
    let outside = check_response(&[(":status", "404"), ("capsule-protocol", "?1")]).unwrap();
    assert!(!outside.capsule_protocol && check_response(&[(":status", "200"), ("capsule-protocol", "?1")]).is_ok());
}

#[test]
fn sections_have_limits() {
    let limits = Limits { size: 100, fields: 3 };
    let mut check = TrailersCheck::new(limits);
    assert!(check.add((b"a", &[b'x'; 67])).is_ok(), "100 bytes");
    assert_eq!(check.add((b"", b"")), Err(TooLarge));
    let mut check = TrailersCheck::new(Limits { size: 1000, ..limits });
    assert!((0..3).all(|_| check.add((b"a", b"b")).is_ok()));
    assert_eq!(check.add((b"a", b"b")), Err(TooLarge));
    let error = TooLarge.error();
    assert_eq!((error.code, error.scope), (Code::H3_EXCESSIVE_LOAD, Scope::Stream));
    // 10,000 fields are refused at the 513th.
    let mut check = ResponseCheck::new(Limits::default());
    assert_eq!((0..10_000).take_while(|_| check.add((b"a", b"b")).is_ok()).count(), 512);
}

#[test]
fn what_is_built_is_well_formed() {
    let fields = bytes(&[("accept", "*/*"), ("content-length", "3")]);
    let target = [&b"https"[..], b"a.test", b"/b"];
    let (head, all) = request(b"PUT", target, None, fields.iter().copied(), Some(1000)).unwrap();
    assert_eq!((head.method, head.content_length), (&b"PUT"[..], Some(3)));
    let expected = bytes(&[
        (":method", "PUT"),
        (":scheme", "https"),
        (":authority", "a.test"),
        (":path", "/b"),
        ("accept", "*/*"),
        ("content-length", "3"),
    ]);
    assert_eq!(all.collect::<Vec<_>>(), expected);
    let status = status_text(404);
    let (_, all) = response(&status, fields.iter().copied(), None).unwrap();
    assert_eq!(all.count(), 3);
    assert!(trailers(fields.iter().copied(), Some(1000)).is_ok());

    let bad = bytes(&[("Accept", "a")]);
    let none = || core::iter::empty::<Field<'_>>();
    assert_eq!(request(b"GET", target, None, bad.iter().copied(), None).err(), Some(Name));
    assert_eq!(request(b"GET", target, None, fields.iter().copied(), Some(100)).err(), Some(TooLarge));
    assert_eq!(request(b"GET", [b"https", b"a", b""], None, none(), None).err(), Some(Missing));
    assert_eq!(request(b"GET", target, Some(b"websocket"), none(), None).err(), Some(Surplus));
    assert!(request(b"CONNECT", [b"", b"a:1", b""], None, none(), None).is_ok());
    assert_eq!(response(&status_text(101), none(), None).err(), Some(Status));
    assert_eq!(trailers(bytes(&[(":status", "200")]).iter().copied(), None).err(), Some(Undefined));
}

proptest! {
    #[test]
    fn any_fields_pass_or_fail(
        lines in proptest::collection::vec(
            (
                proptest::sample::select(vec![
                    ":method", ":scheme", ":authority", ":path", ":protocol", ":status", ":", "", "host", "te",
                    "content-length", "priority", "capsule-protocol", "x",
                ]),
                prop_oneof![
                    Just(b"GET".to_vec()), Just(b"CONNECT".to_vec()), Just(b"https".to_vec()), Just(b"/".to_vec()),
                    Just(b"200".to_vec()), Just(b"a:1".to_vec()), any::<Vec<u8>>(),
                ],
            ),
            0..12,
        ),
        extended in any::<bool>(),
    ) {
        let mut check = RequestCheck::new(Limits::default(), extended);
        let added = lines.iter().try_for_each(|(name, value)| check.add((name.as_bytes(), value)));
        if let (Ok(()), Ok(head)) = (added, check.finish()) {
            let regular: Vec<Field<'_>> =
                lines.iter().filter(|(name, _)| !name.starts_with(':')).map(|(n, v)| (n.as_bytes(), &v[..])).collect();
            // A Host field is kept beside the authority that it stands for.
            let target = [head.scheme, head.authority, head.path];
            let again = request(head.method, target, head.protocol, regular.into_iter(), None);
            if !head.path.is_empty() || head.scheme.is_empty() {
                prop_assert_eq!(again.map(|(again, _)| again), Ok(head));
            }
        }
        let mut check = ResponseCheck::new(Limits::default());
        let _ = lines.iter().try_for_each(|(name, value)| check.add((name.as_bytes(), value)));
        let _ = check.finish();
        let mut check = TrailersCheck::new(Limits::default());
        let _ = lines.iter().try_for_each(|(name, value)| check.add((name.as_bytes(), value)));
    }
}
