//! The bytes of protocol version 1. Nodes of two versions talk to each other during an upgrade, so these may change only
//! together with [`PROTOCOL_VERSION`], once there is a release.

mod common;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::path::PathBuf;

use bytes::Bytes;
use quorate_protocol::*;

const UPDATE: &str = "QUORATE_UPDATE_GOLDEN";

fn file() -> PathBuf {
    let name = format!("tests/golden/v{PROTOCOL_VERSION}.txt");
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn bytes(hex: &str) -> Bytes {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

#[test]
fn the_bytes_of_every_message_stay() {
    let mut written = format!(
        "# Messages of protocol version {PROTOCOL_VERSION}: a name and the body of a frame in hexadecimal.\n\
         # Rewritten by `{UPDATE}=1 cargo test -p quorate-protocol --test golden`; the messages are in tests/common.\n"
    );
    for (name, message) in common::specimens() {
        writeln!(written, "{name} {}", hex(&message.encode())).unwrap();
    }
    if std::env::var_os(UPDATE).is_some() {
        fs::write(file(), &written).unwrap();
    }
    let golden = fs::read_to_string(file()).unwrap_or_default();
    for (line, (golden, written)) in golden.lines().zip(written.lines()).enumerate() {
        assert_eq!(
            golden,
            written,
            "line {} of {} is not what this build writes; if that is meant: {UPDATE}=1 cargo test -p quorate-protocol \
             --test golden",
            line + 1,
            file().display()
        );
    }
    assert_eq!(
        golden.lines().count(),
        written.lines().count(),
        "{} has other messages than the test; if that is meant: {UPDATE}=1 cargo test -p quorate-protocol --test golden",
        file().display()
    );
    let lines = golden.lines().filter(|line| !line.starts_with('#'));
    for (line, (name, message)) in lines.zip(common::specimens()) {
        let (_, hex) = line.split_once(' ').unwrap();
        assert_eq!(Message::decode(&bytes(hex)).unwrap(), message, "{name}");
    }
}

/// The name of a message's variant, of all levels. Whoever adds a variant has to name it here, and finds
/// [`every_variant_has_a_specimen`] waiting for its golden bytes.
fn variant(message: &Message) -> String {
    let refusal = |refusal: &Refusal| match refusal {
        Refusal::Malformed(_) => 0,
        Refusal::BadContext(_) => 1,
        Refusal::TooLarge { .. } => 2,
        Refusal::Impossible(_) => 3,
        Refusal::TooManySiblings { .. } => 4,
        Refusal::Unavailable { .. } => 5,
        Refusal::Overloaded => 6,
        Refusal::Draining => 7,
        Refusal::Poisoned(_) => 8,
        Refusal::WrongLayout { .. } => 9,
        Refusal::Corrupt(_) => 10,
        Refusal::NotAllowed(_) => 11,
        Refusal::SiblingsTooLarge { .. } => 12,
        Refusal::ConditionFailed(_) => 13,
        Refusal::Conflict(_) => 14,
        Refusal::NotFound(_) => 15,
        Refusal::BucketChanged(_) => 16,
        Refusal::DiskFull { .. } => 17,
        Refusal::HintsFull { .. } => 18,
    };
    match message {
        Message::Request(_, _, Request::Put(_)) => "request 0".to_owned(),
        Message::Request(_, _, Request::Get(_)) => "request 1".to_owned(),
        Message::Request(_, _, Request::Delete(_)) => "request 2".to_owned(),
        Message::Request(_, _, Request::Describe) => "request 3".to_owned(),
        Message::Request(_, _, Request::List(_)) => "request 4".to_owned(),
        Message::Request(_, _, Request::Bucket(request)) => match &request.action {
            BucketAction::Show => "request 5 show".to_owned(),
            BucketAction::Create(_) => "request 5 create".to_owned(),
            BucketAction::Update(_) => "request 5 update".to_owned(),
            BucketAction::Set(_) => "request 5 set".to_owned(),
            BucketAction::Drop => "request 5 drop".to_owned(),
        },
        Message::Request(_, _, Request::Buckets) => "request 6".to_owned(),
        Message::Request(_, _, Request::Status) => "request 7".to_owned(),
        Message::Request(_, _, Request::Repair(_)) => "request 8".to_owned(),
        Message::Request(_, _, Request::Apply(_)) => "request 9".to_owned(),
        Message::Request(_, _, Request::Layouts) => "request 10".to_owned(),
        Message::Request(_, _, Request::Pace(_)) => "request 11".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Layout(asked)) => match &**asked {
            LayoutRequest::Tell(_) => "replica 8 tell".to_owned(),
            LayoutRequest::Prepare(..) => "replica 8 prepare".to_owned(),
            LayoutRequest::Accept(..) => "replica 8 accept".to_owned(),
        },
        Message::Reply(_, ReplicaReply::Layout(reply)) => match &**reply {
            LayoutReply::Told(_) => "reply 9 told".to_owned(),
            LayoutReply::Promised(..) => "reply 9 promised".to_owned(),
            LayoutReply::Accepted(_) => "reply 9 accepted".to_owned(),
            LayoutReply::Outdone(_) => "reply 9 outdone".to_owned(),
        },
        Message::Replica(_, _, ReplicaRequest::Upkeep(asked)) => match &**asked {
            Upkeep::Hello(_) => "replica 6 hello".to_owned(),
            Upkeep::Root(_) => "replica 6 root".to_owned(),
            Upkeep::Parts(_) => "replica 6 parts".to_owned(),
            Upkeep::Evidence(_) => "replica 6 evidence".to_owned(),
            Upkeep::Reconcile(_) => "replica 6 reconcile".to_owned(),
            Upkeep::Testify(_) => "replica 6 testify".to_owned(),
            Upkeep::Confirm(_) => "replica 6 confirm".to_owned(),
            Upkeep::Forget(_) => "replica 6 forget".to_owned(),
            Upkeep::Repair(_) => "replica 6 repair".to_owned(),
        },
        Message::Reply(_, ReplicaReply::Upkeep(reply)) => match &**reply {
            UpkeepReply::Known(_) => "reply 7 known".to_owned(),
            UpkeepReply::Root(..) => "reply 7 root".to_owned(),
            UpkeepReply::Parts(_) => "reply 7 parts".to_owned(),
            UpkeepReply::Evidence(..) => "reply 7 evidence".to_owned(),
            UpkeepReply::Records(_) => "reply 7 records".to_owned(),
            UpkeepReply::Testimony(_) => "reply 7 testimony".to_owned(),
            UpkeepReply::Confirmed(_) => "reply 7 confirmed".to_owned(),
            UpkeepReply::Forgotten => "reply 7 forgotten".to_owned(),
            UpkeepReply::Repaired(_) => "reply 7 repaired".to_owned(),
        },
        Message::Answer(_, Answer::Stored { .. }) => "answer 0".to_owned(),
        Message::Answer(_, Answer::Found { .. }) => "answer 1".to_owned(),
        Message::Answer(_, Answer::Absent) => "answer 2".to_owned(),
        Message::Answer(_, Answer::Deleted) => "answer 3".to_owned(),
        Message::Answer(_, Answer::Described(_)) => "answer 4".to_owned(),
        Message::Answer(_, Answer::Unmet(_)) => "answer 5".to_owned(),
        Message::Answer(_, Answer::Refused(why)) => format!("answer refused {}", refusal(why)),
        Message::Answer(_, Answer::Listed(_)) => "answer 6".to_owned(),
        Message::Answer(_, Answer::Bucket(_)) => "answer 7".to_owned(),
        Message::Answer(_, Answer::Buckets(_)) => "answer 8".to_owned(),
        Message::Answer(_, Answer::Status(_)) => "answer 9".to_owned(),
        Message::Answer(_, Answer::Explained(..)) => "answer 10".to_owned(),
        Message::Answer(_, Answer::Repaired(_)) => "answer 11".to_owned(),
        Message::Answer(_, Answer::Applied(_)) => "answer 12".to_owned(),
        Message::Answer(_, Answer::Layouts(_)) => "answer 13".to_owned(),
        Message::Answer(_, Answer::Pace(_)) => "answer 14".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Scan(_)) => "replica 2".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Bucket(_)) => "replica 3".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Buckets(_)) => "replica 4".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Status) => "replica 5".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Merge(_)) => "replica 0".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Read(_)) => "replica 1".to_owned(),
        Message::Replica(_, _, ReplicaRequest::Recall(_)) => "replica 7".to_owned(),
        Message::Reply(_, ReplicaReply::Merged { .. }) => "reply 0".to_owned(),
        Message::Reply(_, ReplicaReply::Record(_)) => "reply 1".to_owned(),
        Message::Reply(_, ReplicaReply::Digest(_)) => "reply 2".to_owned(),
        Message::Reply(_, ReplicaReply::Scanned(_)) => "reply 3".to_owned(),
        Message::Reply(_, ReplicaReply::Bucket(_)) => "reply 4".to_owned(),
        Message::Reply(_, ReplicaReply::Buckets(_)) => "reply 5".to_owned(),
        Message::Reply(_, ReplicaReply::Status(_)) => "reply 6".to_owned(),
        Message::Reply(_, ReplicaReply::Gone(_)) => "reply 8".to_owned(),
        Message::Reply(_, ReplicaReply::Refused(why)) => format!("reply refused {}", refusal(why)),
    }
}

#[test]
fn every_variant_has_a_specimen() {
    let covered: BTreeSet<String> = common::specimens()
        .iter()
        .map(|(_, m)| variant(m))
        .collect();
    let (refusals, upkeep) = (19, 9);
    let layouts = 3 + 4;
    let others = 16 + 15 + 7 + 8 + layouts;
    assert_eq!(
        covered.len(),
        others + 2 * upkeep + 2 * refusals,
        "{covered:?}"
    );
}

#[test]
fn the_payload_of_a_stored_value_stays() {
    // On disk, inside a record: outlives every connection.
    let value = Value {
        data: Bytes::from_static(b"milk"),
        content_type: Some("text/plain".to_owned()),
        meta: vec![("colour".to_owned(), "white".to_owned())],
    };
    let golden = concat!(
        "93",                     // three fields
        "c4046d696c6b",           // 4 bytes: milk
        "aa746578742f706c61696e", // text/plain
        "91",
        "92", // one pair
        "a6636f6c6f7572",
        "a57768697465",
    );
    assert_eq!(hex(&encode_value(&value)), golden);
    assert_eq!(decode_value(&bytes(golden)).unwrap(), value);
    assert_eq!(hex(&encode_value(&Value::new(""))), "93c400c090");
}

#[test]
fn a_buckets_id_stays() {
    // Part of every key on disk. 96 bits of blake3 over the name, and the generation, 4 bytes big-endian.
    assert_eq!(
        hex(&BucketId::new("cart", 0).0),
        "e9d685eddb318c6e69d5789a00000000"
    );
    assert_eq!(
        hex(&BucketId::new("cart", 1).0),
        "e9d685eddb318c6e69d5789a00000001"
    );
    assert_eq!(
        hex(&BucketId::new("", 0).0),
        "af1349b9f5f9a1a6a0404dea00000000"
    );
}
