//! What the binary says without a cluster. The tests that start processes are in the package quorate-tests, and find the
//! binary that cargo builds for this one.

use std::process::Command;

#[test]
fn it_names_itself_and_its_commands() {
    let run = |argument: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_quorate"))
            .arg(argument)
            .output()
            .expect("it runs");
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("text"),
        )
    };
    let (code, version) = run("--version");
    assert_eq!(
        (code, version.as_str()),
        (
            Some(0),
            concat!("quorate ", env!("CARGO_PKG_VERSION"), "\n")
        )
    );
    let (code, help) = run("--help");
    assert_eq!(code, Some(0));
    for command in [
        "dev", "init", "server", "ready", "get", "put", "delete", "list", "import", "export",
        "verify", "bench", "sim",
    ] {
        assert!(
            help.contains(&format!("\n  {command} ")),
            "{command} is missing:\n{help}"
        );
    }
}

#[test]
fn the_simulator_runs_some_seeds() {
    let mut sim = Command::new(env!("CARGO_BIN_EXE_quorate"));
    let output = sim
        .args(["sim", "--seeds", "0..4", "--profile", "calm", "-o", "json"])
        .output()
        .expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(
        output.status.success() && text.contains("\"seeds\":4"),
        "{text}"
    );
    let wrong = Command::new(env!("CARGO_BIN_EXE_quorate"))
        .args(["sim", "--seeds", "4.."])
        .output()
        .expect("it runs");
    assert_eq!(wrong.status.code(), Some(2));
}
