//! Mistakes in a configuration: what is said names file, key and remedy.

use std::collections::BTreeMap;
use std::path::Path;

use quorate_server::{Durability, NodeConfig};

use crate::common::{edit, load, made};

fn complaint(file: &Path, env: &[(&str, &str)], flags: &[(&str, &str)]) -> String {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let flags: BTreeMap<String, String> = flags.iter().map(own).collect();
    NodeConfig::load(file, env.iter().map(own), flags)
        .and_then(|config| config.check().map(|_| ()))
        .expect_err("a mistake must be found")
        .to_string()
}

fn says(complaint: &str, parts: &[&str]) {
    for part in parts {
        assert!(complaint.contains(part), "{part:?} is not in: {complaint}");
    }
}

#[test]
fn a_good_configuration_is_explained() {
    let (_dir, report) = made(3);
    let explained = load(&report.nodes[1].config).check().unwrap().to_string();
    says(
        &explained,
        &[
            "node-2",
            "3 nodes",
            "fsync",
            &report.nodes[1].quic,
            &report.cluster,
        ],
    );
}

#[test]
fn a_mistyped_key_names_the_nearest() {
    let (_dir, report) = made(1);
    let file = &report.nodes[0].config;
    edit(file, "durability =", "durablity =");
    says(
        &complaint(file, &[], &[]),
        &["node-1.toml", "'durablity'", "did you mean 'durability'?"],
    );
    edit(file, "durablity =", "xyzzy =");
    says(
        &complaint(file, &[], &[]),
        &["'xyzzy'", "the keys are name, data_dir"],
    );
    edit(file, "xyzzy =", "durability =");
    says(
        &complaint(file, &[("QUORATE_DURABLITY", "os")], &[]),
        &[
            "the environment",
            "'QUORATE_DURABLITY'",
            "did you mean 'QUORATE_DURABILITY'?",
        ],
    );
    says(
        &complaint(file, &[], &[("http-listen", "127.0.0.1:1")]),
        &["the command line", "'http_listen'"],
    );
}

#[test]
fn a_bad_value_says_what_to_write() {
    let (_dir, report) = made(1);
    let file = &report.nodes[0].config;
    edit(file, "\"fsync\"\n", "\"fsnyc\"\n");
    says(
        &complaint(file, &[], &[]),
        &["node-1.toml", "durability = \"fsnyc\"", "\"os\""],
    );
    says(
        &complaint(file, &[("QUORATE_DURABILITY", "never")], &[]),
        &["the environment", "QUORATE_DURABILITY"],
    );
    let os = [("QUORATE_DURABILITY", "os")];
    says(
        &complaint(file, &os, &[("quic_listen", "localhost")]),
        &["the command line", "quic_listen", "127.0.0.1:7401"],
    );
    says(
        &complaint(file, &os, &[("value_bytes_max", "8 mb")]),
        &["value_bytes_max", "MiB"],
    );
    says(
        &complaint(file, &os, &[("value_bytes_max", "1 GiB")]),
        &["value_bytes_max", "from 1 to"],
    );
    says(
        &complaint(file, &os, &[("name", "")]),
        &["must not be empty"],
    );
}

#[test]
fn later_sources_win() {
    let (_dir, report) = made(1);
    let env = [
        ("QUORATE_DURABILITY", "os"),
        ("QUORATE_SIBLINGS_MAX", "7"),
        ("QUORATE_ENDPOINT", "not ours"),
        ("QUORATE_SIM_SEED", "not ours"),
        ("QUORATE_SERVICE_HOST", "not ours"),
        ("QUORATE_NODE_1_PORT_7401_TCP", "not ours"),
        ("DURABLITY", "not ours"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let flags = BTreeMap::from([("siblings_max".to_owned(), "9".to_owned())]);
    let config = NodeConfig::load(&report.nodes[0].config, env, flags).unwrap();
    assert_eq!(
        (config.durability, config.siblings_max),
        (Durability::Os, 9)
    );
    assert_eq!(config.value_bytes_max, 8 << 20);
    assert_eq!(config.data_dir, report.nodes[0].data_dir);
}

#[test]
fn what_is_missing_is_named() {
    let (dir, report) = made(2);
    let file = &report.nodes[0].config;
    says(
        &complaint(&dir.path().join("none.toml"), &[], &[]),
        &["none.toml", "quorate init"],
    );
    says(
        &complaint(file, &[], &[("layout", "/nowhere/layout.json")]),
        &["/nowhere/layout.json", "`layout`"],
    );
    says(
        &complaint(file, &[], &[("name", "node-9")]),
        &["no node named 'node-9'", "node-1, node-2"],
    );
    let own = load(file);
    let certificate = load(&report.nodes[1].config)
        .certificate
        .display()
        .to_string();
    says(
        &complaint(file, &[], &[("certificate", &certificate)]),
        &["private key", "does not belong"],
    );
    let key = load(&report.nodes[1].config).key.display().to_string();
    let both = [("certificate", certificate.as_str()), ("key", &key)];
    says(
        &complaint(file, &[], &both),
        &["issued to node 2", "node-1.toml"],
    );
    std::fs::write(&own.secret, "short").unwrap();
    says(
        &complaint(file, &[], &[]),
        &["secret", "64 hexadecimal digits"],
    );
    edit(file, "secret =", "# secret =");
    says(
        &complaint(file, &[], &[]),
        &["node-1.toml", "'secret' is missing"],
    );
    std::fs::write(file, "name = \n").unwrap();
    says(&complaint(file, &[], &[]), &["node-1.toml", "line 1"]);
}

#[test]
fn files_of_two_clusters_do_not_mix() {
    let (_one, ours) = made(1);
    let (_two, theirs) = made(1);
    let other = load(&theirs.nodes[0].config);
    let layout = other.layout.display().to_string();
    let words = complaint(&ours.nodes[0].config, &[], &[("layout", &layout)]);
    says(&words, &[&ours.cluster, &theirs.cluster, "certificate"]);
    let ca = other.ca.display().to_string();
    says(
        &complaint(&ours.nodes[0].config, &[], &[("ca", &ca)]),
        &["was not issued by the CA"],
    );
}
