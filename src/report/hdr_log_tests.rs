//! Logs can be read back, and damage is reported.

use super::*;
use crate::base::rng::Rng;
use crate::report::{ReportInput, html, text};
use proptest::prelude::*;

fn latency(range: std::ops::Range<u64>) -> Latency {
    let mut l = Latency::new();
    range.for_each(|n| l.record(n * 100));
    l
}

fn at(secs: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
}

fn sample() -> HdrLog {
    HdrLog {
        facts: vec![("CPU".into(), "Some: CPU\n@ 3 GHz".into())],
        throughput: vec![
            Bar::new("down, one stream", 12.5, "Gbit/s"),
            Bar { spread: Some((9.0, 11.5)), ..Bar::new("up", 10.25, "Gbit/s, median") },
        ],
        series: vec![
            Series::new("gannet, 1 KiB", latency(1..1000)).recorded(at(1_700_000_010), Duration::from_secs(30)),
            Series::new("peer", latency(5..500)).recorded(at(1_700_000_000), Duration::from_millis(1500)),
        ],
    }
}

#[test]
fn what_is_written_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.hdr");
    let log = sample();
    write_hdr_log(&path, &log).unwrap();
    let mut want = log;
    want.facts[0].1 = "Some: CPU @ 3 GHz".into();
    assert_eq!(read_hdr_log(&path).unwrap(), want);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.starts_with("#[Histogram log format version 1.3]\n"), "{text}");
    assert!(text.contains("\n#[BaseTime: 1700000000.000 "), "{text}");
    assert!(text.contains("\nTag=gannet%2C%201%20KiB,10.000,30.000,0.100,HISTFAAA"), "{text}");
}

#[test]
fn intervals_with_one_tag_are_one_series() {
    let mut log = sample();
    log.series[0].name = "peer".into();
    let read = decode(&encode(&log).unwrap(), "x").unwrap();
    assert_eq!(read.series.len(), 1);
    let s = &read.series[0];
    assert_eq!(s.latency.count(), 999 + 495);
    assert_eq!((s.start, s.duration), (at(1_700_000_000), Duration::from_secs(40)));
}

#[test]
fn logs_of_other_writers_are_read() {
    let text = String::from_utf8(encode(&sample()).unwrap()).unwrap();
    let line = text.lines().find(|l| l.starts_with("Tag=peer")).unwrap().replace("Tag=peer,", "");
    // No tag, no base time, Windows line endings, no line ending at the end.
    let text = format!("#any comment\r\n#[StartTime: 1700000000.000 (seconds since epoch), Tue]\r\n\r\n{line}");
    let read = decode(text.as_bytes(), "untagged").unwrap();
    assert_eq!(read.series[0].name, "untagged");
    assert_eq!(read.series[0].start, at(1_700_000_000));
    assert_eq!(read.series[0].latency, sample().series[1].latency);
}

#[test]
fn bad_files_are_named_with_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.hdr");
    let why = |content: &[u8]| {
        std::fs::write(&path, content).unwrap();
        read_hdr_log(&path).unwrap_err().to_string()
    };
    let good = String::from_utf8(encode(&sample()).unwrap()).unwrap();
    let last = good.lines().count();
    let cut = &good[..good.len() - 40];
    for (content, line, part) in [
        (b"hello\n".to_vec(), 1, "not a line"),
        (b"#fine\n\xff\xfe\n".to_vec(), 2, "not text"),
        (cut.as_bytes().to_vec(), last, "damaged"),
        (good.replace(",HIST", ",HIS!").into_bytes(), last - 1, "base64"),
        (b"0.0,1.0,1.0,AAAAAAAA\n".to_vec(), 1, "V2"),
        (b"99999999999999999999.0,1.0,1.0,AAAA\n".to_vec(), 1, "not a line"),
    ] {
        let e = why(&content);
        assert!(e.contains(&format!("bad.hdr:{line}: ")) && e.contains(part), "{e}");
    }
    let e = why(good.replace("BaseTime: 1700000000", "BaseTime: 18446744073709551615").as_bytes());
    assert!(e.contains("out of range"), "{e}");
    assert!(why(b"").contains("no histogram"));
    assert!(why(b"#only a comment\n").contains("bad.hdr"));
    let e = read_hdr_log(&dir.path().join("missing.hdr")).unwrap_err().to_string();
    assert!(e.contains("missing.hdr") && e.contains("No such file"), "{e}");
    assert!(read_hdr_log(dir.path()).unwrap_err().to_string().contains("directory"));
    let e = read_hdr_log(Path::new("/dev/zero")).unwrap_err().to_string();
    assert!(e.contains("/dev/zero has more than 256 MiB"), "{e}");
}

/// Valid files, damaged in many ways: truncated, spliced, with odd tags and absurd numbers. Each is read or rejected,
/// and what is read can be rendered. `GANNET_FUZZ_ROUNDS` sets the number.
#[test]
fn damaged_files_are_refused_or_shown() {
    const WORDS: [&str; 25] = [
        "Tag=",
        "Tag=,",
        "Tag=<script>,",
        "Tag=a,b,",
        "Tag=%2C%0A%00,",
        "Tag=%,",
        "Tag=%zz,",
        "Tag=\u{1f600},",
        "\n",
        "\r\n",
        ",",
        "-1",
        "18446744073709551615",
        "99999999999999999999999",
        "1e308",
        "0.9999999999999999",
        "nan",
        ".",
        "#[BaseTime: 18446744073709551615.999 (",
        "#[StartTime: 0.0000000000001",
        "#bar x nan ",
        "#bar x 1:2 y",
        "#bar x 1:2:3 y",
        "#bar x 1:0:nan y",
        "#fact : ",
    ];
    let rounds = std::env::var("GANNET_FUZZ_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(3000);
    let mut rng = Rng::from_u64(27);
    let good = encode(&sample()).unwrap();
    let (mut read, mut refused) = (0, 0);
    for _ in 0..rounds {
        let mut bytes = good.clone();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len() as u64 + 1) as usize;
            let to = at + rng.below((bytes.len() - at) as u64 + 1) as usize;
            let word = WORDS[rng.below(WORDS.len() as u64) as usize];
            match rng.below(6) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..to.min(at + 20))),
                2 => bytes.splice(at..at, word.bytes()).for_each(drop),
                3 => bytes.splice(at..to.min(at + 10), word.bytes()).for_each(drop),
                4 => bytes.splice(at..at, bytes[at..to].to_vec()).for_each(drop),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = rng.below(256) as u8),
            }
        }
        match decode(&bytes, "untagged") {
            Ok(log) => {
                read += 1;
                let input =
                    ReportInput { title: "t".into(), facts: log.facts, series: log.series, throughput: log.throughput };
                let page = html::render(&input);
                assert!(!page.contains("<script"), "what a file says is text");
                text::summary_table(&input.series);
            }
            Err((line, why)) => {
                refused += 1;
                assert!(line >= 1 && line <= bytes.split(|b| *b == b'\n').count());
                assert!(!why.to_string().is_empty());
            }
        }
    }
    assert!(read > rounds / 50 && refused > rounds / 50, "{read} were read, {refused} refused");
}

proptest! {
    #[test]
    fn any_name_survives(name in "\\PC{0,20}|[ -~\\r\\n]{0,20}") {
        prop_assume!(!name.is_empty());
        let escaped = escape(&name);
        prop_assert!(Tag::new(&escaped).is_some());
        prop_assert_eq!(unescape(&escaped), name);
    }

    #[test]
    fn any_text_is_an_error_or_harmless(s in "\\PC{0,80}") {
        let _ = decode(s.as_bytes(), "x");
        let _ = unescape(&s);
    }
}
