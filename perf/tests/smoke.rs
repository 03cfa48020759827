//! Runs of the program at the smallest scale.

use std::path::Path;
use std::process::Command;

fn run(arguments: &[&str], out: &Path) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gannet-perf"));
    command.arg("run").args(arguments).arg("--tiny").arg("--out").arg(out).output().expect("it can be started")
}

#[test]
fn placement_is_measured_and_written_down() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("x.json");
    let out = run(&["--only", "placement,packets", "--json", json.to_str().unwrap()], dir.path());
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let results: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    for mtu in [1500, 9000] {
        for temperature in ["warm", "cold"] {
            for key in ["direct_ns", "pooled_ns", "copy_ns", "direct_vs_copy"] {
                let key = format!("placement_{mtu}_{temperature}.{key}");
                for field in ["median", "min", "max"] {
                    assert!(results[&key][field].as_f64().is_some_and(|v| v > 0.0), "{key}.{field}: {results}");
                }
            }
        }
    }
    assert_eq!(results["placement_1500_cold.direct_copied_per_byte"]["max"], 0.0);
    assert_eq!(results["placement_1500_cold.copy_copied_per_byte"]["median"], 1.0);
    assert_eq!(results["copied_bytes_per_byte"]["max"], 0.0);
    let page = std::fs::read_to_string(dir.path().join("report.html")).unwrap();
    assert!(page.contains("Gannet benchmarks") && page.contains("ns per packet"));
    let table = String::from_utf8(out.stdout).unwrap();
    assert!(table.contains("rx_1500.ns_per_packet") && table.contains("<= 260"), "{table}");
}

#[test]
fn a_part_that_fails_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = run(&["--only", "rps", "--gannet", "/no/such/program"], dir.path());
    assert!(!out.status.success());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(said.contains("/no/such/program") && said.contains("failed: rps"), "{said}");
}

#[test]
fn cores_are_measured_or_the_missing_cpu_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("x.json");
    let out = run(&["--only", "cores", "--json", json.to_str().unwrap()], dir.path());
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    if said.contains("needs two CPUs") {
        return;
    }
    let results: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(json).unwrap()).unwrap();
    for key in
        ["handover_ns", "handover_single_ns", "scaling_vs_aead", "aead_scaling", "engine_1_mpps", "wrong_core_ns"]
    {
        assert!(results[format!("cores.{key}")]["min"].as_f64().is_some_and(|v| v > 0.0), "{key}: {results}");
    }
    for key in ["right_core_p50_us", "wrong_core_p50_us", "right_core_p99_us", "wrong_core_p99_us"] {
        assert!(results[format!("cores.{key}")]["median"].as_f64().is_some_and(|v| v > 0.0), "{key}: {results}");
    }
    assert!(said.contains("the AEAD alone is"), "the kind of machine: {said}");
}

#[test]
fn links_are_the_same_each_time_and_held_against_a_table() {
    let dir = tempfile::tempdir().unwrap();
    let (table, json) = (dir.path().join("wan.json"), dir.path().join("x.json"));
    let wan = |more: &[&str]| {
        let names = ["--only", "wan", "--scenario", "short", "--wan-table", table.to_str().unwrap()];
        run(&[&names[..], more].concat(), dir.path())
    };
    let missing = wan(&["--check"]);
    assert!(!missing.status.success() && String::from_utf8_lossy(&missing.stderr).contains("--record"));
    let first = wan(&["--record", "--json", json.to_str().unwrap()]);
    assert!(first.status.success(), "{}", String::from_utf8_lossy(&first.stderr));
    let results: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    for stack in ["gannet.cubic", "gannet.newreno", "quinn.cubic", "quinn.bbr"] {
        let fraction = &results[format!("wan.short_50m_20ms.{stack}.fraction")]["median"];
        assert!(fraction.as_f64().is_some_and(|f| (0.5..1.02).contains(&f)), "{stack}: {results}");
    }
    let picture = std::fs::read_to_string(dir.path().join("wan-short_50m_20ms.svg")).unwrap();
    assert!(picture.contains("gannet.newreno"));
    let again = wan(&["--check"]);
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
    // One that is worse than it was.
    let text = std::fs::read_to_string(&table).unwrap();
    let key = "\"wan.short_50m_20ms.gannet.cubic.fraction\": 0.";
    std::fs::write(&table, text.replace(key, "\"wan.short_50m_20ms.gannet.cubic.fraction\": 1.")).unwrap();
    let worse = wan(&["--check"]);
    let said = String::from_utf8_lossy(&worse.stderr);
    assert!(!worse.status.success() && said.contains("wan.short_50m_20ms.gannet.cubic.fraction"), "{said}");
    let unknown = wan(&["--stack", "gannet.vegas"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("there are gannet.cubic"));
}
