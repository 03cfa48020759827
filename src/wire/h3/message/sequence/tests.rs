use super::*;
use crate::wire::h3::error::Scope;
use crate::wire::h3::priority::Priority;

/// A frame of a sequence, and what becomes known with it.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// HEADERS with a head: the status of a response, or of no meaning in a request.
    Head(u16, Option<u64>),
    /// HEADERS with trailers.
    Trailers,
    Data(u64),
}

fn play(asked: Option<Asked>, method: &[u8], steps: &[Step]) -> Result<(), Error> {
    let mut sequence = asked.map_or(Sequence::of_request(), Sequence::of_response);
    for step in steps {
        match *step {
            Step::Data(len) => sequence.data(len)?,
            Step::Trailers => assert_eq!(sequence.headers()?, Section::Trailers),
            Step::Head(status, content_length) => {
                assert_eq!(sequence.headers()?, Section::Head);
                let (priority, capsule_protocol) = (Priority::default(), false);
                match asked {
                    Some(_) => {
                        sequence.response(&ResponseHead { status, content_length, priority, capsule_protocol });
                    }
                    None => sequence.request(&RequestHead {
                        method,
                        scheme: b"https",
                        authority: b"a",
                        path: b"/",
                        protocol: None,
                        content_length,
                        priority,
                        expect_continue: false,
                        capsule_protocol,
                    }),
                }
            }
        }
    }
    sequence.finish()
}

/// A method, what is sent, and the error that it is.
type Play<'a> = (&'a str, &'a [Step], Option<(Code, Scope)>);

#[test]
fn sequences_of_frames() {
    use Step::{Data, Head, Trailers};
    const UNEXPECTED: Option<(Code, Scope)> = Some((Code::H3_FRAME_UNEXPECTED, Scope::Connection));
    const MALFORMED: Option<(Code, Scope)> = Some((Code::H3_MESSAGE_ERROR, Scope::Stream));
    const INCOMPLETE: Option<(Code, Scope)> = Some((Code::H3_REQUEST_INCOMPLETE, Scope::Stream));
    const REQ: Step = Head(0, None);
    let requests: &[Play<'_>] = &[
        ("GET", &[REQ], None),
        ("GET", &[REQ, Data(1), Data(0), Data(5)], None),
        ("GET", &[REQ, Data(1), Trailers], None),
        ("GET", &[REQ, Trailers], None),
        ("GET", &[], INCOMPLETE),
        ("GET", &[Data(0)], UNEXPECTED),
        ("GET", &[REQ, Trailers, Data(1)], UNEXPECTED),
        ("GET", &[REQ, Trailers, Trailers], UNEXPECTED),
        ("PUT", &[Head(0, Some(6)), Data(1), Data(5)], None),
        ("PUT", &[Head(0, Some(6)), Data(6), Trailers], None),
        ("PUT", &[Head(0, Some(6)), Data(5)], MALFORMED),
        ("PUT", &[Head(0, Some(6)), Data(5), Trailers], MALFORMED),
        ("PUT", &[Head(0, Some(6)), Data(7)], MALFORMED),
        ("PUT", &[Head(0, Some(6)), Data(3), Data(1 << 61)], MALFORMED),
        ("PUT", &[Head(0, Some(6))], MALFORMED),
        ("PUT", &[Head(0, Some(0))], None),
        ("PUT", &[Head(0, Some(0)), Data(1)], MALFORMED),
        ("CONNECT", &[Head(0, Some(6)), Data(1), Data(100)], None),
        ("CONNECT", &[REQ, Trailers], UNEXPECTED),
        ("CONNECT", &[REQ, Data(1), Trailers], UNEXPECTED),
    ];
    for (method, steps, expected) in requests {
        let got = play(None, method.as_bytes(), steps).err().map(|error| (error.code, error.scope));
        assert_eq!(got, *expected, "{method} {steps:?}");
    }
    let responses: &[Play<'_>] = &[
        ("GET", &[Head(200, None), Data(5)], None),
        ("GET", &[Head(103, None), Head(100, None), Head(200, Some(5)), Data(5), Trailers], None),
        ("GET", &[], MALFORMED),
        ("GET", &[Head(103, None)], MALFORMED),
        ("GET", &[Head(103, None), Data(1)], UNEXPECTED),
        ("GET", &[Head(103, Some(5)), Head(200, None)], None),
        ("GET", &[Data(1)], UNEXPECTED),
        ("GET", &[Head(200, None), Trailers, Trailers], UNEXPECTED),
        ("GET", &[Head(200, None), Trailers, Data(0)], UNEXPECTED),
        ("GET", &[Head(200, Some(5)), Data(4)], MALFORMED),
        ("GET", &[Head(200, Some(5)), Data(6)], MALFORMED),
        ("GET", &[Head(304, Some(5))], None),
        ("GET", &[Head(304, Some(5)), Data(5)], MALFORMED),
        ("GET", &[Head(204, None), Data(1)], MALFORMED),
        ("HEAD", &[Head(200, Some(5))], None),
        ("HEAD", &[Head(200, Some(5)), Data(0), Trailers], None),
        ("HEAD", &[Head(200, Some(5)), Data(5)], MALFORMED),
        ("CONNECT", &[Head(200, Some(5)), Data(100)], None),
        ("CONNECT", &[Head(200, None), Trailers], UNEXPECTED),
        ("CONNECT", &[Head(404, Some(5)), Data(5), Trailers], None),
        ("CONNECT", &[Head(404, Some(5)), Data(4)], MALFORMED),
    ];
    for (method, steps, expected) in responses {
        let asked = Asked::by(method.as_bytes());
        let got = play(Some(asked), &[], steps).err().map(|error| (error.code, error.scope));
        assert_eq!(got, *expected, "response to {method} {steps:?}");
    }
    // While a head waits for QPACK, nothing behind it may be judged.
    let mut waiting = Sequence::of_request();
    assert_eq!(waiting.headers(), Ok(Section::Head));
    assert!(waiting.headers().is_err() && waiting.data(0).is_err() && waiting.finish().is_err());
}
