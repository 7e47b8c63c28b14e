//! What is refused, what is stored, and what must never change.

use crate::clusters::{CLUSTER, first, node, nodes};
use quorate_ring::{Layout, LayoutError, LayoutSpec, MAX_NODES, NodeId, NodeSpec, Partition};
use serde_json::{Value, json};

fn refused(change: impl FnOnce(&mut LayoutSpec)) -> LayoutError {
    let mut spec = LayoutSpec::new(nodes(&[(1, 0), (1, 0), (1, 1)]));
    change(&mut spec);
    Layout::first(CLUSTER, spec).expect_err("an invalid description")
}

#[test]
fn impossible_clusters_are_refused_with_the_reason() {
    use LayoutError::*;
    for partitions in [0, 3, 100, 8192] {
        assert_eq!(
            refused(|s| s.partitions = partitions),
            Partitions(partitions)
        );
    }
    assert_eq!(refused(|s| s.replicas = 0), Copies(0));
    assert_eq!(refused(|s| s.replicas = 200), Copies(200));
    assert_eq!(refused(|s| s.nodes.clear()), NoNodes);
    let many = (0..=MAX_NODES as u64).map(|id| node(id, 1, "eu", "a"));
    assert_eq!(refused(|s| s.nodes = many.collect()), TooManyNodes(1025));
    assert_eq!(
        refused(|s| s.nodes[2].id = NodeId(1)),
        DuplicateId(NodeId(1))
    );
    assert_eq!(
        refused(|s| s.nodes[2].name = "node-1".into()),
        DuplicateName("node-1".into())
    );
    assert_eq!(
        refused(|s| s.nodes[1].weight = 0),
        ZeroWeight("node-2".into())
    );

    let text = |change: fn(&mut NodeSpec)| match refused(|s| change(&mut s.nodes[0])) {
        Text { what, .. } => what,
        other => panic!("{other}"),
    };
    assert_eq!(text(|node| node.name.clear()), "node name");
    assert_eq!(text(|node| node.region = "e u".into()), "region");
    assert_eq!(text(|node| node.zone = "z".repeat(64)), "zone");
    assert_eq!(text(|node| node.quic.push('\n')), "QUIC address");
    assert_eq!(text(|node| node.http = "h".repeat(300)), "HTTP address");
}

#[test]
fn a_successor_is_checked_like_the_first() {
    let layout = first(16, 3, nodes(&[(1, 0), (1, 0), (1, 1)]));
    assert_eq!(layout.next(vec![]), Err(LayoutError::NoNodes));
    let mut form = serde_json::to_value(&layout).unwrap();
    form["version"] = json!(u64::MAX);
    let last: Layout = serde_json::from_value(form).unwrap();
    let next = last.next(nodes(&[(1, 0)]));
    assert_eq!(next, Err(LayoutError::Version(u64::MAX)));
}

#[test]
fn a_layout_survives_json_and_messagepack() {
    let mut all = nodes(&[(1, 0), (7, 0), (2, 1), (2, 2)]);
    all.push(node(40, 1, "us", "a"));
    let layout = first(32, 3, all)
        .next(nodes(&[(1, 0), (7, 0), (2, 1)]))
        .unwrap();
    let json = serde_json::to_string(&layout).unwrap();
    let back: Layout = serde_json::from_str(&json).unwrap();
    assert_eq!(back, layout);
    assert_eq!(back.digest(), layout.digest());
    let bytes = rmp_serde::to_vec(&layout).unwrap();
    let back: Layout = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!(back, layout);
}

#[test]
fn a_tampered_layout_is_refused_with_what_is_wrong() {
    let mut all = nodes(&[(1, 0), (1, 0), (1, 1), (1, 1)]);
    all.push(node(64, 1, "us", "a"));
    let form = serde_json::to_value(first(16, 3, all)).unwrap();
    let error = |change: fn(&mut Value)| {
        let mut form = form.clone();
        change(&mut form);
        let refused = serde_json::from_value::<Layout>(form);
        refused.expect_err("a tampered layout").to_string()
    };
    let expect = |change: fn(&mut Value), reason: &str| {
        let error = error(change);
        assert!(error.contains(reason), "{error:?} lacks {reason:?}");
    };
    expect(|f| f["version"] = json!(0), "layout version 0");
    expect(|f| f["partitions"] = json!(15), "15 partitions");
    expect(
        |f| f["partitions"] = json!(32),
        "seats for 16 partitions: 32 expected",
    );
    expect(
        |f| f["replicas"] = json!(2),
        "3 seats in region \"eu\": 2 expected",
    );
    expect(|f| f["nodes"] = json!([]), "at least one node");
    expect(
        |f| f["nodes"][1]["id"] = f["nodes"][0]["id"].clone(),
        "two nodes have the id",
    );
    expect(
        |f| f["nodes"][1]["name"] = json!("node-1"),
        "two nodes are named",
    );
    expect(|f| f["nodes"][1]["weight"] = json!(0), "weight 0");
    expect(
        |f| f["nodes"][1]["colour"] = json!("red"),
        "unknown field `colour`",
    );
    expect(
        |f| f["nodes"][0]["id"] = json!("beef"),
        "16 hexadecimal digits",
    );
    expect(
        |f| drop(f["nodes"].as_array_mut().unwrap().remove(1)),
        "unknown node",
    );
    expect(
        |f| f["nodes"][0]["region"] = json!("us"),
        "of another region",
    );
    expect(|f| f["seats"]["mars"] = json!([]), "\"mars\"");
    expect(
        |f| drop(f["seats"].as_object_mut().unwrap().remove("us")),
        "regions [\"eu\"]",
    );
    expect(|f| f["seats"]["eu"] = json!([]), "seats for 0 partitions");
    expect(
        |f| f["seats"]["eu"][7] = json!([]),
        "partition 7 has 0 seats",
    );
    expect(
        |f| f["seats"]["eu"][7][0] = json!("00000000000000ff"),
        "partition 7 in region \"eu\" has a seat on the unknown node 00000000000000ff",
    );
    expect(
        |f| f["seats"]["eu"][7][0] = json!("0000000000000040"),
        "a seat on node 0000000000000040 of another region",
    );
    expect(
        |f| f["seats"]["eu"][7][0] = f["seats"]["eu"][7][1].clone(),
        "two seats on node",
    );
    expect(|f| f["cluster"] = json!(7), "invalid type");
}

/// Keys are stored under their partition for ever, and nodes compare layouts by digest: neither may change.
/// How a layout is computed may (a computed one is agreed on and kept), but never by accident.
#[test]
fn golden_values_do_not_change() {
    let layout = first(256, 3, nodes(&[(1, 0), (2, 1), (3, 2), (4, 0)]));
    let partition = |bucket, key: &str| layout.partition_of(bucket, key.as_bytes());
    assert_eq!(partition("users", "ada"), Partition(242));
    assert_eq!(partition("users", "grace"), Partition(155));
    // One zero byte, whose hash begins with 2d in BLAKE3's own test vectors.
    assert_eq!(partition("", ""), Partition(0x2d));
    assert_eq!(partition("a", "bc"), Partition(12));
    assert_eq!(partition("ab", "c"), Partition(22));
    // Fewer partitions are the same ring, cut into fewer arcs.
    let coarse = first(16, 3, layout.nodes().to_vec());
    assert_eq!(
        coarse.partition_of("users", b"ada").0,
        partition("users", "ada").0 / 16
    );
    let fine = first(4096, 1, layout.nodes().to_vec());
    assert_eq!(
        fine.partition_of("users", b"ada").0 / 16,
        partition("users", "ada").0
    );

    let hex = |layout: &Layout| {
        let digest = layout.digest();
        digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    assert_eq!(hex(&layout), "3cb8134b3a9d5528");
    let next = layout
        .next(nodes(&[(1, 0), (2, 1), (3, 2), (4, 0), (5, 1)]))
        .unwrap();
    assert_eq!(hex(&next), "9985f51b5af0dfa5");
}

#[test]
fn every_field_is_in_the_digest() {
    let form = serde_json::to_value(first(8, 2, nodes(&[(1, 0), (1, 1), (1, 2)]))).unwrap();
    let digest = |form: &Value| {
        serde_json::from_value::<Layout>(form.clone())
            .unwrap()
            .digest()
    };
    let changes: [fn(&mut Value); 9] = [
        |f| f["version"] = json!(2),
        |f| f["cluster"] = json!("00000000000000000000000000000001"),
        |f| f["nodes"][0]["name"] = json!("else"),
        |f| f["nodes"][0]["zone"] = json!("else"),
        |f| f["nodes"][0]["weight"] = json!(2),
        |f| f["nodes"][0]["quic"] = json!("else:1"),
        |f| f["nodes"][0]["http"] = json!("else:1"),
        |f| f["seats"]["eu"][3].as_array_mut().unwrap().reverse(),
        |f| f["seats"]["eu"].as_array_mut().unwrap().swap(0, 1),
    ];
    let mut digests = vec![digest(&form)];
    for change in changes {
        let mut form = form.clone();
        change(&mut form);
        digests.push(digest(&form));
    }
    digests.sort_unstable();
    digests.dedup();
    assert_eq!(digests.len(), 10);
}
