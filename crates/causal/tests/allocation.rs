//! Lengths that bytes announce are not believed before the bytes are there.
//!
//! In a process of its own, since it watches how far the process's address space ever grew.

#![cfg(target_os = "linux")]

use bytes::Bytes;
use quorate_causal::{Context, ContextKey, Record, Runs};

fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmPeak:"))
        .unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

#[test]
fn announced_lengths_are_not_allocated() {
    // 2^28 of anything, in LEB128: as siblings 16 GiB, and as runs 4 GiB.
    let huge = [0x80, 0x80, 0x80, 0x80, 0x01];
    let actor = [1; 16];
    let before = peak_bytes();
    let padding = [1; 1 << 16];
    for padding in [&[][..], &padding] {
        let siblings = [&[1][..], &huge, padding].concat();
        assert!(Record::decode(&Bytes::from(siblings.clone())).is_err());
        assert!(Record::digest_of(&siblings, 0).is_err());
        let actors = [&[1, 0][..], &huge, padding].concat();
        assert!(Record::decode(&Bytes::from(actors)).is_err());
        let runs = [&[1, 0, 1][..], &actor, &huge, padding].concat();
        assert!(Record::decode(&Bytes::from(runs)).is_err());
        let payload = [&[1, 1][..], &actor, &[1, 0], &huge, &[0], padding].concat();
        assert!(Record::decode(&Bytes::from(payload)).is_err());
        assert!(Runs::decode(&[&huge[..], padding].concat()).is_err());
        let key = ContextKey::new(&[7; 32]);
        let sealed = key.seal("b", b"k", &Context::default());
        let dots = [&sealed[..5], &huge, padding, &[0; 16]].concat();
        assert!(key.open("b", b"k", &dots).is_err());
    }
    // A thread of the test harness may reserve a heap of its own meanwhile (64 MiB each): far less than any of the above.
    let grown = peak_bytes() - before;
    assert!(grown < 512 << 20, "the address space grew by {grown} bytes");
}
