//! Lengths that a frame announces are not believed before the bytes are there.
//!
//! In a process of its own, since it watches how far the process's address space ever grew.

#![cfg(target_os = "linux")]

mod common;

use quorate_protocol::{Message, decode_value};

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
    // A string, bytes, an array, a map and an extension of 4 GiB each.
    let huge = [0xdb, 0xc6, 0xdd, 0xdf, 0xc9].map(|marker| [marker, 0xff, 0xff, 0xff, 0xff]);
    let before = peak_bytes();
    for (name, message) in common::specimens() {
        let frame = message.encode();
        // In place of whatever stands at any offset: somewhere each field of each message begins.
        for at in 1..frame.len() {
            for announced in &huge {
                for rest in [&[][..], &frame[at..]] {
                    let forged = [&frame[..at], announced, rest].concat();
                    // Behind a field of bytes the announcement is content, and its last byte may be all that is said of a number
                    // of 128 bits, which is written in 18; never is it the end.
                    if let Ok(read) = Message::decode(&forged) {
                        assert!(
                            rest.len() < forged.len() && read.encode().len() <= forged.len() + 17,
                            "{name}"
                        );
                    }
                    let _ = decode_value(&forged[1..]);
                }
            }
        }
    }
    // A thread of the test harness may reserve a heap of its own meanwhile (64 MiB each): far less than any of the above.
    let grown = peak_bytes() - before;
    assert!(grown < 512 << 20, "the address space grew by {grown} bytes");
}
