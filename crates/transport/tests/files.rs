//! The files that identities are kept in, and what is said when something is wrong with them.

mod common;

use std::fs;
use std::path::Path;

use common::{CLUSTER, DAY, client, forge, hours, node_name};
use quorate_transport::{
    Authority, AuthorityError, Credentials, CredentialsError, Identity, PeerName,
};

#[test]
fn an_authority_is_saved_loaded_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("ca");
    let authority = Authority::create(CLUSTER).unwrap();
    authority.save(&home).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&home.join("ca.key")), 0o600);
        assert_eq!(mode(&home), 0o700);
    }
    let error = Authority::create(2).unwrap().save(&home).unwrap_err();
    assert!(matches!(error, AuthorityError::Exists(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("ca.pem exists already and is not overwritten"),
        "{error}"
    );

    // What the loaded authority issues is good beside what the first one issued.
    let loaded = Authority::load(&home).unwrap();
    assert_eq!(loaded.cluster(), CLUSTER);
    assert_eq!(loaded.certificate_pem(), authority.certificate_pem());
    let issued = loaded.issue(&Identity::Node(7), DAY).unwrap();
    let (certificate, key) = (dir.path().join("node.pem"), dir.path().join("node.key"));
    issued.save(&certificate, &key).unwrap();
    assert!(matches!(
        issued.save(&certificate, &key),
        Err(AuthorityError::Exists(_))
    ));
    let credentials = Credentials::load(&home.join("ca.pem"), &certificate, &key).unwrap();
    assert_eq!(
        credentials.name(),
        &PeerName {
            cluster: CLUSTER,
            identity: Identity::Node(7)
        }
    );
    let left = credentials
        .expires()
        .duration_since(std::time::SystemTime::now())
        .unwrap();
    assert!(left <= DAY && left > DAY / 2, "{left:?}");
}

#[test]
fn a_broken_authority_says_which_file() {
    let dir = tempfile::tempdir().unwrap();
    let says = |text: &str| {
        let error = Authority::load(dir.path()).unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    };
    says("ca.pem does not exist");
    Authority::create(CLUSTER)
        .unwrap()
        .save(dir.path())
        .unwrap();
    let other = tempfile::tempdir().unwrap();
    Authority::create(CLUSTER)
        .unwrap()
        .save(other.path())
        .unwrap();
    fs::copy(other.path().join("ca.key"), dir.path().join("ca.key")).unwrap();
    says("ca.key is not usable: it is not the key of");
    fs::write(dir.path().join("ca.key"), "nonsense").unwrap();
    says("ca.key is not usable: no PEM private key in it");
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    says("ca.key does not exist");
    let node = Authority::create(CLUSTER)
        .unwrap()
        .issue(&Identity::Node(1), DAY)
        .unwrap();
    fs::write(dir.path().join("ca.pem"), node.certificate_pem).unwrap();
    fs::write(dir.path().join("ca.key"), node.key_pem).unwrap();
    says("ca.pem is not usable: not a CA that `quorate init` made");
}

#[test]
fn a_certificate_does_not_outlive_its_authority_and_names_are_checked() {
    let authority = Authority::create(CLUSTER).unwrap();
    let issued = authority
        .issue(&client(), std::time::Duration::MAX)
        .unwrap();
    let forever = Credentials::from_pem(
        authority.certificate_pem(),
        issued.certificate_pem,
        issued.key_pem,
    )
    .unwrap();
    assert!(forever.expires() < std::time::SystemTime::now() + DAY * 366 * 10);
    let error = authority
        .issue(&Identity::Client("No Spaces".into()), DAY)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("\"No Spaces\" is no client name"),
        "{error}"
    );
}

/// A directory with good files, of which each test spoils one.
struct Home {
    dir: tempfile::TempDir,
    authority: Authority,
}

impl Home {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::create(CLUSTER).unwrap();
        let issued = authority.issue(&Identity::Node(1), DAY).unwrap();
        let home = Home { dir, authority };
        home.write("ca.pem", home.authority.certificate_pem());
        home.write("node.pem", &issued.certificate_pem);
        home.write("node.key", &issued.key_pem);
        home
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.dir.path().join(name), text).unwrap();
    }

    fn load(&self) -> Result<Credentials, CredentialsError> {
        let path = |name: &str| self.dir.path().join(name);
        Credentials::load(&path("ca.pem"), &path("node.pem"), &path("node.key"))
    }

    fn says(&self, words: &[&str]) {
        let error = self.load().unwrap_err().to_string();
        for word in words {
            assert!(error.contains(word), "\"{error}\" lacks \"{word}\"");
        }
    }
}

#[test]
fn missing_and_empty_files_are_named() {
    let home = Home::new();
    home.load().unwrap();
    fs::remove_file(home.dir.path().join("node.key")).unwrap();
    home.says(&[
        "cannot read the private key",
        "node.key",
        "correct the path",
    ]);
    home.write("node.key", "");
    home.says(&["node.key is not usable: no PEM private key in it"]);
    home.write("node.pem", "hello");
    home.says(&["node.pem is not usable: no PEM certificate in it"]);
    home.write(
        "node.pem",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
    );
    home.says(&["node.pem is not usable: broken PEM"]);
    home.write(
        "node.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    home.says(&["node.pem is not usable: not a readable certificate"]);
}

#[test]
fn files_that_do_not_belong_together_are_named() {
    let home = Home::new();
    let second = home.authority.issue(&Identity::Node(2), DAY).unwrap();
    home.write("node.key", &second.key_pem);
    home.says(&[
        "the private key",
        "node.key does not belong to the certificate",
        "node.pem",
        "issued together",
    ]);

    let home = Home::new();
    home.write(
        "ca.pem",
        Authority::create(CLUSTER).unwrap().certificate_pem(),
    );
    home.says(&["node.pem was not issued by the CA in", "ca.pem"]);
    home.write(
        "ca.pem",
        Authority::create(CLUSTER + 1).unwrap().certificate_pem(),
    );
    home.says(&[
        "node.pem was not issued by the CA in",
        "ca.pem (unknown issuer)",
    ]);
}

#[test]
fn dates_and_names_are_checked_at_load() {
    let home = Home::new();
    let spoil = |names: &[String], from, until| {
        let forged = forge(&home.authority, names, from, until);
        home.write("node.pem", &forged.certificate_pem);
        home.write("node.key", &forged.key_pem);
    };
    let name = node_name(1, CLUSTER);
    let until = hours(-24);
    spoil(std::slice::from_ref(&name), hours(-48), until);
    home.says(&[
        "node.pem expired on",
        &until.date().to_string(),
        "issue a new one",
    ]);
    spoil(std::slice::from_ref(&name), hours(24), hours(48));
    home.says(&[
        "node.pem is not valid before",
        "correct this machine's clock",
    ]);
    spoil(&[name, node_name(2, CLUSTER)], hours(-1), hours(1));
    home.says(&["node.pem cannot be used", "carries 2 Quorate names"]);
    spoil(&[], hours(-1), hours(1));
    home.says(&["node.pem cannot be used", "carries no Quorate name"]);
}

#[test]
fn a_certificate_issued_now_is_good_for_a_clock_that_is_hours_behind() {
    let authority = Authority::create(CLUSTER).unwrap();
    let issued = authority.issue(&Identity::Node(1), DAY).unwrap();
    for pem in [&issued.certificate_pem, authority.certificate_pem()] {
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let parsed = pem.parse_x509().unwrap();
        let from = parsed.validity().not_before.to_datetime();
        assert!(from <= hours(-23), "valid from {from}");
    }
}
