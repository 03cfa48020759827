//! Files of simulated connections: both ends tell the same story.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;
use std::sync::Arc;

use gannet::qlog::{Qlog, QlogConfig};
use gannet::sim;
use serde_json::Value;

use crate::schema;

/// Packets by type (in the data space, all are of the same type) and number.
type Packets = BTreeSet<(String, u64)>;

/// What a file says.
#[derive(Debug, Default)]
struct Story {
    group: String,
    server: bool,
    sent: Packets,
    received: Packets,
    /// Number of packets that came again, and of those for which there was no memory.
    again: u64,
    refused: u64,
    acked: Packets,
    lost: Packets,
    names: HashMap<String, u64>,
    states: Vec<String>,
    /// Bytes of stream frames sent, by stream.
    streams: BTreeMap<u64, u64>,
}

fn number(value: &Value) -> u64 {
    // Those that not every reader represents exactly are strings.
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{value} is no number"))
}

fn space(kind: &Value) -> String {
    match kind.as_str().expect("a type") {
        "0RTT" | "1RTT" | "application_data" => "data".to_owned(),
        other => other.to_owned(),
    }
}

impl Story {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).unwrap();
        assert!(text.starts_with('\u{1e}') && text.ends_with('\n'));
        let mut records = text[1..].split('\u{1e}').map(|record| {
            serde_json::from_str::<Value>(record)
                .unwrap_or_else(|error| panic!("{}: {error}: {record}", path.display()))
        });
        let header = records.next().expect("a header");
        let trace = &header["trace"];
        let mut story = Self {
            group: trace["common_fields"]["group_id"].as_str().unwrap().to_owned(),
            server: trace["vantage_point"]["type"] == "server",
            ..Self::default()
        };
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with(&story.group), "{name}");
        let mut time = 0.0;
        for event in records {
            let now = event["time"].as_f64().unwrap();
            assert!(now >= time, "time goes back: {event}");
            time = now;
            story.take(&event);
        }
        assert!(story.again <= story.refused, "{name}: {} packets came twice", story.again - story.refused);
        story
    }

    fn take(&mut self, event: &Value) {
        let (name, data) = schema::check(event);
        *self.names.entry(name.to_owned()).or_default() += 1;
        let header = &data["header"];
        let id = || (space(&header["packet_type"]), number(&header["packet_number"]));
        match name {
            "packet_sent" => {
                assert!(self.sent.insert(id()), "sent twice: {event}");
                for frame in data["frames"].as_array().unwrap() {
                    if frame["frame_type"] == "stream" {
                        let bytes = number(&frame["raw"]["length"]);
                        *self.streams.entry(number(&frame["stream_id"])).or_default() += bytes;
                    }
                }
            }
            "packet_received" if header.get("packet_number").is_some() => {
                self.again += u64::from(!self.received.insert(id()));
            }
            // For the peer, it is lost, so that it may come again.
            "packet_dropped" if data["details"]["reason"] == "no_memory" => self.refused += 1,
            "packets_acked" => {
                for pn in data["packet_numbers"].as_array().unwrap() {
                    let packet = (space(&data["packet_number_space"]), number(pn));
                    assert!(self.sent.contains(&packet), "was not sent: {event}");
                    assert!(self.acked.insert(packet), "acknowledged twice: {event}");
                }
            }
            "packet_lost" => {
                let packet = id();
                assert!(self.sent.contains(&packet) && !self.acked.contains(&packet), "{event}");
                self.lost.insert(packet);
            }
            "connection_state_updated" => self.states.push(data["new"].as_str().unwrap().to_owned()),
            _ => {}
        }
    }
}

/// The stories of a play, by the client's first ID: the client's and, if there is one, the server's.
fn stories(seed: u64) -> Vec<(Story, Option<Story>)> {
    let dir = tempfile::tempdir().unwrap();
    let qlog = Qlog::direct(QlogConfig::new(dir.path())).unwrap();
    let tracer = Some(Arc::new(qlog.clone()) as _);
    sim::run_plan(sim::Plan { tracer, ..sim::Plan::from_seed(seed) }).unwrap();
    let entries = std::fs::read_dir(dir.path()).unwrap().map(|entry| Story::read(&entry.unwrap().path()));
    let (servers, clients): (Vec<_>, Vec<_>) = entries.partition(|story| story.server);
    // Engines with the same seed choose the same first IDs.
    let single = |stories: &[Story], group: &str| stories.iter().filter(|story| story.group == group).count() == 1;
    let pairs = |group: &str| single(&clients, group) && single(&servers, group);
    let pairs: BTreeSet<_> = clients.iter().map(|story| story.group.clone()).filter(|group| pairs(group)).collect();
    let mut servers: HashMap<_, _> = servers.into_iter().map(|story| (story.group.clone(), story)).collect();
    servers.retain(|group, _| pairs.contains(group));
    let [(_, files), (_, events), (_, missing), ..] = qlog.counters();
    assert!(files > 0 && events > 0 && missing == 0);
    clients
        .into_iter()
        .map(|client| {
            let server = servers.remove(&client.group);
            (client, server)
        })
        .collect()
}

#[test]
fn both_ends_tell_the_same_story() {
    let (mut names, mut pairs) = (HashMap::new(), 0);
    for seed in 0..120 {
        for (client, server) in stories(seed) {
            for (name, n) in client.names.iter().chain(server.iter().flat_map(|server| &server.names)) {
                *names.entry(name.clone()).or_insert(0) += n;
            }
            assert_eq!(client.states.first().map(String::as_str), Some("attempted"), "seed {seed}");
            // Engines that are dropped close nothing.
            let closed = client.names.contains_key("connection_closed");
            let last = client.states.last().map(String::as_str);
            assert!(!closed || last == Some("closed"), "seed {seed}: {:?}", client.states);
            let Some(server) = server else { continue };
            pairs += 1;
            for (from, to) in [(&client, &server), (&server, &client)] {
                let strange: Vec<_> = to.received.difference(&from.sent).collect();
                assert!(strange.is_empty(), "seed {seed}: received, but not sent: {strange:?}");
                let unseen: Vec<_> = from.acked.difference(&to.received).collect();
                assert!(unseen.is_empty(), "seed {seed}: acknowledged, but not received: {unseen:?}");
            }
        }
    }
    assert!(pairs > 60, "{pairs} connections with both ends");
    let expected = [
        "packet_sent",
        "packet_received",
        "packet_dropped",
        "packet_buffered",
        "packets_acked",
        "packet_lost",
        "marked_for_retransmit",
        "parameters_set",
        "parameters_restored",
        "alpn_information",
        "version_information",
        "recovery_parameters_set",
        "recovery_metrics_updated",
        "congestion_state_updated",
        "connection_started",
        "connection_closed",
        "connection_id_updated",
        "connection_state_updated",
        "tuple_assigned",
        "mtu_updated",
        "spin_bit_updated",
        "key_updated",
        "key_discarded",
        "ecn_state_updated",
        "udp_datagrams_sent",
        "udp_datagrams_received",
        "stream_state_updated",
        "connection_data_blocked_updated",
        "timer_updated",
    ];
    let missing: Vec<_> = expected.iter().filter(|name| !names.contains_key(**name)).collect();
    assert!(missing.is_empty(), "never told: {missing:?}");
}
