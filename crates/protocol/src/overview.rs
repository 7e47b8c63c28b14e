//! A cluster at a glance: what its nodes said and what its layout says, joined, with what is wrong in words. What
//! `quorate status` prints and `GET /v1/cluster` answers.

use quorate_ring::{Layout, NodeId};
use serde::{Deserialize, Serialize};

use crate::{ClusterStatus, NodeStatus, PendingHints, UpkeepStatus};

/// Clocks that differ by more than this are worth a word. No decision looks at a clock; but the times in logs do not fit
/// together, and certificates begin and end by them.
const CLOCK_S_MAX: u64 = 5;

/// A node that could not store this part of what it has already is worth a word: compaction and catching up need room.
const FREE_PART_MIN: u64 = 10;

/// A node hears within a second of its start whether it has lost anything; after this time it is worth a word that it has not.
const UNVERIFIED_S_MAX: u64 = 10;

/// What is known of a cluster, from one of its nodes.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Overview {
    /// The cluster's id, in 32 hexadecimal digits.
    pub cluster: String,
    /// The layout's version, as the answering node knows it.
    pub layout_version: u64,
    /// The name of the node that answered.
    pub answered_by: String,
    /// Every node of the layout, by id.
    pub nodes: Vec<NodeOverview>,
    /// What is wrong, a sentence each, with what to do; empty if nothing is.
    pub concerns: Vec<String>,
}

/// Whether a node can serve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// It answers and can serve.
    Up,
    /// It answers and cannot serve, or not everything.
    #[serde(rename = "not ready")]
    NotReady,
    /// It did not answer the node that was asked.
    Down,
}

impl NodeState {
    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            NodeState::Up => "up",
            NodeState::NotReady => "not ready",
            NodeState::Down => "down",
        }
    }
}

/// One node: from the layout, and from itself where it answered.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct NodeOverview {
    /// Its id in the layout.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Where nodes and clients reach it, `host:port`.
    pub quic: String,
    /// Where it answers HTTP, `host:port`.
    pub http: String,
    /// Its region.
    pub region: String,
    /// Its zone.
    pub zone: String,
    /// Its weight.
    pub weight: u32,
    /// Whether it can serve.
    pub state: NodeState,
    /// Why not, where it says so itself.
    pub reason: Option<String>,
    /// The part of all copies in the cluster that the layout gives it, from 0 to 1.
    pub share: f64,
    /// What it told of itself; absent if it did not answer.
    #[serde(flatten)]
    pub told: Option<Told>,
}

/// What a node told of itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Told {
    /// Records it holds, approximately.
    pub records: u64,
    /// Bytes that its data takes on the disk.
    pub disk_bytes: u64,
    /// Bytes free on that file system; 0 if unknown.
    pub disk_free_bytes: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// The nodes that it cannot reach, by name.
    pub unreachable: Vec<String>,
    /// The release it runs.
    pub version: String,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The layout it knows.
    pub layout_version: u64,
    /// Seconds since the epoch by its clock; 0 if unknown.
    pub clock_s: u64,
    /// The hints it holds for other nodes, by whom they are for.
    pub hints: Vec<PendingHints>,
    /// What it does for the sake of what it and others hold.
    pub upkeep: UpkeepStatus,
}

impl Overview {
    /// Joins what the nodes said with the layout. `now_s` is the time by the asker's own clock, in seconds since the epoch;
    /// 0 for an asker that has none or is one of the nodes.
    #[must_use]
    pub fn new(status: &ClusterStatus, layout: &Layout, now_s: u64) -> Overview {
        let load = layout.load();
        let seats: u64 = load.values().map(|load| u64::from(load.seats)).sum();
        let mut nodes: Vec<NodeOverview> = layout
            .nodes()
            .iter()
            .map(|spec| {
                let told = status.nodes.iter().find(|told| told.id == spec.id.0);
                let own = load.get(&spec.id).map_or(0, |load| load.seats);
                NodeOverview {
                    id: spec.id.0,
                    name: spec.name.clone(),
                    quic: spec.quic.clone(),
                    http: spec.http.clone(),
                    region: spec.region.clone(),
                    zone: spec.zone.clone(),
                    weight: spec.weight,
                    state: match told {
                        None => NodeState::Down,
                        Some(NodeStatus {
                            not_ready: None, ..
                        }) => NodeState::Up,
                        Some(_) => NodeState::NotReady,
                    },
                    reason: told.and_then(|told| told.not_ready.clone()),
                    share: f64::from(own) / seats.max(1) as f64,
                    told: told.map(Told::of),
                }
            })
            .collect();
        nodes.sort_by_key(|node| NodeId(node.id));
        Overview {
            cluster: layout.cluster().to_string(),
            layout_version: layout.version(),
            answered_by: status.node.clone(),
            concerns: concerns(&nodes, status, layout.version(), now_s),
            nodes,
        }
    }
}

impl Told {
    fn of(status: &NodeStatus) -> Told {
        Told {
            records: status.records,
            disk_bytes: status.disk_bytes,
            disk_free_bytes: status.disk_free_bytes,
            in_flight: status.in_flight,
            unreachable: status.unreachable.clone(),
            version: status.release.clone(),
            uptime_s: status.uptime_s,
            layout_version: status.layout_version,
            clock_s: status.clock_s,
            hints: status.hints.clone(),
            upkeep: status.upkeep.clone(),
        }
    }
}

fn concerns(
    nodes: &[NodeOverview],
    status: &ClusterStatus,
    layout_version: u64,
    now_s: u64,
) -> Vec<String> {
    let mut words = Vec::new();
    let down = |name: &str| {
        let is = |node: &&NodeOverview| node.name == name;
        nodes
            .iter()
            .find(is)
            .is_some_and(|node| node.state == NodeState::Down)
    };
    for node in nodes {
        match (node.state, &node.reason) {
            (NodeState::Down, _) => words.push(format!(
                "{} does not answer {}: see whether it runs, and whether UDP {} can be reached.",
                node.name, status.node, node.quic
            )),
            (_, Some(reason)) => words.push(format!("{} is not ready: {reason}.", node.name)),
            _ => {}
        }
    }
    for node in nodes {
        let Some(told) = &node.told else {
            continue;
        };
        // Of a node that is down all others say so; once is enough.
        let unseen: Vec<&str> = told
            .unreachable
            .iter()
            .map(String::as_str)
            .filter(|name| !down(name))
            .collect();
        if !unseen.is_empty() {
            words.push(format!(
                "{} cannot reach {}, which others can: look at the network between them.",
                node.name,
                unseen.join(", ")
            ));
        }
        if told.layout_version != layout_version {
            words.push(format!(
                "{} has layout version {}, and {} has {layout_version}: they refuse each other's requests.",
                node.name, told.layout_version, status.node
            ));
        }
        let upkeep = &told.upkeep;
        if upkeep.refilling > 0 {
            words.push(format!(
                "{} has lost state, and is given it back by the others: {} partitions are left. Until then it answers no reads \
                 of them.",
                node.name, upkeep.refilling
            ));
        }
        // It hears at once, unless it reaches too few.
        if upkeep.unverified && told.uptime_s > UNVERIFIED_S_MAX {
            words.push(format!(
                "{} has not heard from half of the others whether it lost state while it was down, and answers no reads that \
                 count replicas: see whether it reaches them.",
                node.name
            ));
        }
        if upkeep.damaged_keys > 0 {
            words.push(format!(
                "{} has found {} damaged records, which the others are to make good: look at its disk.",
                node.name, upkeep.damaged_keys
            ));
        }
        // What it says itself is said already.
        let little =
            told.disk_free_bytes < (told.disk_bytes + told.disk_free_bytes) / FREE_PART_MIN;
        if little && told.disk_free_bytes > 0 && node.reason.is_none() {
            words.push(format!(
                "{}'s disk is nearly full: {} bytes are free beside {} of data; make room, or add nodes.",
                node.name, told.disk_free_bytes, told.disk_bytes
            ));
        }
    }
    words.extend(clocks(nodes, now_s));
    words
}

/// Whose clocks are apart from the others'.
fn clocks(nodes: &[NodeOverview], now_s: u64) -> Vec<String> {
    let told = nodes
        .iter()
        .filter_map(|node| Some((node, node.told.as_ref()?.clock_s)));
    let told: Vec<(&NodeOverview, u64)> = told.filter(|(_, clock_s)| *clock_s > 0).collect();
    let mut all: Vec<u64> = told.iter().map(|(_, clock_s)| *clock_s).collect();
    // The asker's clock is one more witness.
    all.extend((now_s > 0).then_some(now_s));
    all.sort_unstable();
    let Some(&most) = all.get(all.len() / 2) else {
        return Vec::new();
    };
    // Of two that differ nobody can say which is wrong.
    if let [first, last] = all[..]
        && last - first > CLOCK_S_MAX
    {
        let names: Vec<&str> = told.iter().map(|(node, _)| node.name.as_str()).collect();
        let here = if names.len() == 1 {
            " and this machine"
        } else {
            ""
        };
        return vec![format!(
            "The clocks of {}{here} are {} apart. Nothing stored depends on them; set them, with NTP for instance, so that \
             logs and certificates agree.",
            names.join(" and "),
            span(last - first)
        )];
    }
    told.iter()
        .filter(|(_, clock_s)| clock_s.abs_diff(most) > CLOCK_S_MAX)
        .map(|(node, clock_s)| {
            let way = if *clock_s < most { "behind" } else { "ahead of" };
            format!(
                "{}'s clock is {} {way} the others. Nothing stored depends on it; set it, with NTP for instance, so that logs \
                 and certificates agree.",
                node.name,
                span(clock_s.abs_diff(most))
            )
        })
        .collect()
}

/// Seconds as people say them: the largest unit and the one below it.
fn span(seconds: u64) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let largest = UNITS.iter().position(|(_, size)| seconds >= *size);
    let largest = largest.unwrap_or(UNITS.len() - 1);
    let (unit, size) = UNITS[largest];
    let mut words = format!("{}{unit}", seconds / size);
    if let Some((unit, smaller)) = UNITS.get(largest + 1)
        && seconds % size >= *smaller
    {
        words += &format!("{}{unit}", seconds % size / smaller);
    }
    words
}

#[cfg(test)]
mod tests {
    use quorate_ring::{ClusterId, LayoutSpec, NodeSpec};

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn layout(nodes: u64) -> Layout {
        let node = |id: u64| NodeSpec {
            id: NodeId(id),
            name: format!("node-{id}"),
            region: "eu".into(),
            zone: format!("z{id}"),
            weight: 1,
            quic: format!("10.0.0.{id}:7400"),
            http: format!("10.0.0.{id}:8080"),
        };
        Layout::first(
            ClusterId(7),
            LayoutSpec::new((1..=nodes).map(node).collect()),
        )
        .unwrap()
    }

    fn well(nodes: u64) -> ClusterStatus {
        let node = |id: u64| NodeStatus {
            id,
            name: format!("node-{id}"),
            layout_version: 1,
            disk_bytes: 100,
            disk_free_bytes: 1_000,
            clock_s: NOW + id % 2,
            ..NodeStatus::default()
        };
        ClusterStatus {
            node: "node-1".into(),
            nodes: (1..=nodes).map(node).collect(),
            silent: Vec::new(),
        }
    }

    fn concerns_of(change: impl FnOnce(&mut ClusterStatus)) -> Vec<String> {
        let mut status = well(3);
        change(&mut status);
        Overview::new(&status, &layout(3), NOW).concerns
    }

    #[track_caller]
    fn one(concerns: &[String], parts: &[&str]) {
        let [only] = concerns else {
            panic!("one concern is expected: {concerns:?}");
        };
        for part in parts {
            assert!(only.contains(part), "{part:?} is not in {only}");
        }
    }

    #[test]
    fn a_cluster_that_is_well_gives_no_concern_and_shares_add_up() {
        let overview = Overview::new(&well(3), &layout(3), NOW);
        assert_eq!(overview.concerns, Vec::<String>::new());
        let shares: f64 = overview.nodes.iter().map(|node| node.share).sum();
        assert!((shares - 1.0).abs() < 1e-9, "{shares}");
        assert!(
            overview
                .nodes
                .iter()
                .all(|node| node.state == NodeState::Up)
        );
    }

    #[test]
    fn a_node_that_is_down_is_named_once_with_its_address() {
        let concerns = concerns_of(|status| {
            status.nodes.remove(1);
            status.silent.push("node-2".into());
            status.nodes[0].unreachable.push("node-2".into());
            status.nodes[1].unreachable.push("node-2".into());
        });
        one(&concerns, &["node-2", "node-1", "10.0.0.2:7400"]);
    }

    #[test]
    fn a_link_that_works_for_others_is_a_concern() {
        let concerns = concerns_of(|status| status.nodes[2].unreachable.push("node-2".into()));
        one(&concerns, &["node-3 cannot reach node-2", "network"]);
    }

    #[test]
    fn not_ready_full_disks_and_other_layouts_are_concerns() {
        let concerns = concerns_of(|status| status.nodes[0].not_ready = Some("closing".into()));
        one(&concerns, &["node-1 is not ready: closing"]);
        let concerns = concerns_of(|status| status.nodes[0].disk_free_bytes = 5);
        one(&concerns, &["node-1", "nearly full", "5 bytes"]);
        let concerns = concerns_of(|status| status.nodes[0].disk_free_bytes = 0);
        assert_eq!(concerns, Vec::<String>::new(), "0 is unknown");
        let concerns = concerns_of(|status| status.nodes[2].layout_version = 2);
        one(&concerns, &["node-3 has layout version 2"]);
    }

    #[test]
    fn lost_state_and_damage_are_concerns() {
        let concerns = concerns_of(|status| status.nodes[1].upkeep.refilling = 7);
        one(&concerns, &["node-2 has lost state", "7 partitions"]);
        let concerns = concerns_of(|status| status.nodes[1].upkeep.damaged_keys = 3);
        one(&concerns, &["node-2", "3 damaged records", "disk"]);
        let unverified = |uptime_s| {
            concerns_of(|status| {
                status.nodes[2].upkeep.unverified = true;
                status.nodes[2].uptime_s = uptime_s;
            })
        };
        assert_eq!(unverified(2), Vec::<String>::new());
        one(&unverified(60), &["node-3 has not heard"]);
    }

    #[test]
    fn a_clock_an_hour_off_is_named_with_the_remedy() {
        let concerns = concerns_of(|status| status.nodes[1].clock_s = NOW - 3_600);
        one(
            &concerns,
            &["node-2's clock is 1h behind", "Nothing stored", "NTP"],
        );
        let concerns = concerns_of(|status| status.nodes[1].clock_s = NOW + 3_725);
        one(&concerns, &["node-2's clock is 1h2m ahead"]);
        let concerns = concerns_of(|status| status.nodes[1].clock_s = 0);
        assert_eq!(concerns, Vec::<String>::new(), "0 is unknown");
        // Two nodes, and an asker that sides with one of them.
        let mut two = well(2);
        two.nodes[0].clock_s = NOW - 3_600;
        one(
            &Overview::new(&two, &layout(2), NOW).concerns,
            &["node-1's clock is 1h behind"],
        );
        one(
            &Overview::new(&two, &layout(2), 0).concerns,
            &["node-1 and node-2", "apart"],
        );
        let mut single = well(1);
        single.nodes[0].clock_s = NOW - 3_600;
        one(
            &Overview::new(&single, &layout(1), NOW).concerns,
            &["node-1 and this machine", "1h"],
        );
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(span(3_600), "1h");
        assert_eq!(span(3_725), "1h2m");
        assert_eq!(span(3_601), "1h");
        assert_eq!(span(59), "59s");
        assert_eq!(span(0), "0s");
        assert_eq!(span(90_061), "1d1h");
    }
}
