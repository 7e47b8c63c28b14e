//! Rules for the source of this crate that the compiler cannot see.

use std::fs;
use std::path::Path;

/// Types that MessagePack encodes as arrays of numbers. A replica's write with a bare `Vec<u8>` in it costs 2,200 ns to encode
/// instead of 70: use `Bytes`, or `sixteen_bytes` for an array of sixteen.
fn is_slow(line: &str) -> bool {
    let code: String = line
        .split("//")
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .collect();
    let vector = ["Vec<u8>", "Box<[u8]>", "Arc<[u8]>", "VecDeque<u8>"]
        .iter()
        .any(|t| code.contains(t));
    // An array field; in a function's signature, or behind `serde(with)`, it is no such field.
    let array = code.contains("[u8;") && !code.contains("fn") && !code.contains("&[u8;");
    vector || (array && !code.contains("serde(with=") && !code.contains("->Result<[u8;"))
}

#[test]
fn bytes_in_messages_are_never_numbers() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = 0;
    for entry in fs::read_dir(&source).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            assert!(
                !path.is_dir(),
                "{} is not searched: teach this test to",
                path.display()
            );
            continue;
        }
        files += 1;
        // An attribute stands on the line before its field.
        let source = fs::read_to_string(&path).unwrap();
        let mut attribute = "";
        for (number, line) in source.lines().enumerate() {
            let field = [attribute, line].concat();
            assert!(
                !is_slow(&field),
                "{}:{}: {line}",
                path.display(),
                number + 1
            );
            attribute = if line.trim().starts_with("#[") {
                line
            } else {
                ""
            };
        }
    }
    assert!(files > 2, "this is not the source in {}", source.display());
}

#[test]
fn what_is_slow_is_recognised() {
    for slow in [
        "pub key: Vec<u8>,",
        "Record(Option<Vec< u8 >>),",
        "pub id: [u8; 16],",
        "x: Box<[u8]>,",
    ] {
        assert!(is_slow(slow), "{slow}");
    }
    for fine in [
        "pub key: Bytes,",
        "// not a Vec<u8>",
        "pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {",
        "Digest(#[serde(with = \"crate::ids::sixteen_bytes\")] [u8; 16]),",
        "pub siblings: Vec<Shown>,",
        "let mut id = [0; 16];",
    ] {
        assert!(!is_slow(fine), "{fine}");
    }
}
