//! The load and output of other implementations' clients.

use std::future::Future;
use std::time::{Duration, Instant, SystemTime};

use gannet::report::{Latency, Series};

use crate::Failure;
use crate::cli::PeerArgs;
use crate::output::keep_series;

/// How long requests are made before they are measured.
const WARM_UP: Duration = Duration::from_millis(500);

/// The block that all payload is sent from.
pub static BLOCK: [u8; 64 << 10] = [0x5a; 64 << 10];

/// A request: the size of the answer, and payload.
pub fn request(args: &PeerArgs) -> Vec<u8> {
    let mut bytes = args.download.to_be_bytes().to_vec();
    bytes.resize(8 + args.upload as usize, 0x5a);
    bytes
}

/// Makes the requests that `args` asks for, one after another, and prints the results. `request` makes one, and returns
/// the size of the answer.
///
/// # Errors
/// If a request fails.
pub async fn drive<F>(args: &PeerArgs, mut request: impl FnMut() -> F) -> Result<(), Failure>
where
    F: Future<Output = Result<u64, Failure>>,
{
    let Some(duration) = args.duration else {
        let start = Instant::now();
        let bytes = request().await?;
        let seconds = start.elapsed().as_secs_f64();
        if bytes != args.download {
            return Err(format!("an answer of {bytes} bytes instead of {}", args.download).into());
        }
        println!("download_gbps: {}", bytes as f64 * 8.0 / 1e9 / seconds);
        println!("seconds: {seconds}");
        return Ok(());
    };
    let warm = Instant::now() + WARM_UP.min(duration / 2);
    while Instant::now() < warm {
        request().await?;
    }
    let (began, start, mut latency) = (SystemTime::now(), Instant::now(), Latency::new());
    while start.elapsed() < duration {
        let sent = Instant::now();
        request().await?;
        latency.record(sent.elapsed().as_nanos() as u64);
    }
    let (seconds, summary) = (start.elapsed(), latency.summary());
    println!("requests_per_second: {}", latency.count() as f64 / seconds.as_secs_f64());
    for (name, ns) in [("p50", summary.p50), ("p99", summary.p99), ("p999", summary.p999)] {
        if let Some(ns) = ns {
            println!("latency_{name}_us: {}", ns as f64 / 1000.0);
        }
    }
    if let Some(path) = &args.hdr {
        keep_series(path, Series::new("request", latency).recorded(began, seconds))?;
    }
    Ok(())
}
