//! Runs every target on its committed inputs.

use std::path::Path;

#[test]
fn committed_inputs_do_no_harm() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in gannet_fuzz::TARGETS {
        target(&[]);
        let inputs = std::fs::read_dir(corpora.join(name)).unwrap_or_else(|e| panic!("inputs of {name}: {e}"));
        let mut count = 0;
        for input in inputs {
            let path = input.unwrap().path();
            // The name of an input that fails is in the output.
            println!("{}", path.display());
            target(&std::fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "{name} has no inputs");
    }
}

#[test]
fn every_target_has_a_program() {
    let mut programs: Vec<_> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    programs.sort();
    let mut names: Vec<_> = gannet_fuzz::TARGETS.iter().map(|(name, _)| name.to_string()).collect();
    names.sort();
    assert_eq!(programs, names);
}
