//! `quorate cluster plan`: what is staged, and what it would move.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use quorate_client::Client;
use quorate_protocol::{ApplyLayout, ClusterStatus};
use quorate_ring::{Layout, NodeId, Partition};
use quorate_server::is_loopback;
use serde::Serialize;

use super::stage::PROBE;
use super::staged::Staged;
use crate::failure::Failure;
use crate::options::ClusterArgs;
use crate::output::{self, Form, human_bytes};
use crate::runtime;

/// How fast a node is filled, unless `fill_bytes_per_second` says otherwise.
const FILL_BYTES_PER_SECOND: u64 = 20 << 20;

/// Show what is staged, and what would move
///
/// What would not do is told below the table, on lines that begin with `!`. Nothing is changed.
#[derive(clap::Args)]
pub(crate) struct Plan {
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl Plan {
    pub(crate) fn run(self, form: Form) -> Result<(), Failure> {
        let planned = runtime::block_on(async {
            let client = self.cluster.connect().await?;
            planned(&client).await.map(|(planned, ..)| planned)
        })?;
        match form {
            Form::Json => output::json(&planned),
            Form::Table => planned.show(),
        }
    }
}

/// What is staged, as it would be applied now.
#[derive(Debug, Serialize)]
pub(super) struct Planned {
    /// What the next layout would be called.
    pub(super) version: u64,
    /// Names it: another for other changes, so that nothing is applied that was not looked at.
    pub(super) plan: String,
    /// What is staged, by node.
    pub(super) staged: BTreeMap<String, String>,
    nodes: Vec<PlannedNode>,
    /// Copies of partitions that go to another node, and about how many bytes that is.
    partitions_moved: u32,
    bytes_moved: u64,
    /// About how long it takes at the least, by the default budget of the node that gets most.
    seconds: u64,
    /// What speaks against it.
    concerns: Vec<String>,
    /// Those of them for which it would not come to an end: it is applied only by force.
    pub(super) obstacles: Vec<String>,
}

#[derive(Debug, Serialize)]
struct PlannedNode {
    id: NodeId,
    name: String,
    region: String,
    zone: String,
    weight: u32,
    partitions: u32,
    partitions_then: u32,
    gains: u32,
    loses: u32,
    bytes_gained: u64,
}

/// Reads what is staged, and works out what it means.
pub(super) async fn planned(client: &Client) -> Result<(Planned, Staged, ApplyLayout), Failure> {
    let known = client.layouts().await.map_err(Failure::new)?;
    let staged = Staged::read(client).await?;
    let status = client.status().await.map_err(Failure::new)?;
    let (mut concerns, mut obstacles) = (Vec::new(), Vec::new());
    let current = match &known.live.next {
        None => known.live.current,
        Some(change) => {
            concerns.push(format!(
                "The change to layout version {} is under way: another can be applied once it is done (quorate cluster progress).",
                change.chosen.layout.version()
            ));
            change.chosen.layout.clone()
        }
    };
    if known.live.pace.is_paused() {
        concerns
            .push("Filling is paused: the change waits until quorate cluster resume.".to_owned());
    }
    let apply = staged.on(&current)?;
    let next = current.next(apply.nodes.clone()).map_err(|error| {
        Failure::new(format!(
            "what is staged makes no layout: {error}. Take some of it back with `quorate cluster revert`"
        ))
    })?;
    concerns.extend(what_speaks_against(&current, &next, &apply));
    obstacles.extend(who_is_missing(&current, &apply, &status));
    for spec in next.nodes() {
        if current.node(spec.id).is_none()
            && let Err(why) = client.probe(spec, PROBE).await
        {
            obstacles.push(format!(
                "{} does not answer ({why}): start it first, or the change waits for it.",
                spec.name
            ));
        }
        let others = next.nodes().iter().filter(|n| n.id != spec.id);
        if current.node(spec.id).is_none()
            && is_loopback(&spec.quic)
            && others.clone().any(|n| !is_loopback(&n.quic))
        {
            obstacles.push(format!(
                "{} is said to be at {}, which is another machine for every node: admit it anew with --host.",
                spec.name, spec.quic
            ));
        }
    }
    concerns.extend(obstacles.iter().cloned());
    let told = as_bytes(&apply)?;
    let plan = blake3::hash(&told).to_hex()[..8].to_owned();
    let planned = Planned {
        plan,
        obstacles,
        ..Planned::new(&current, &next, &staged, &status, concerns)
    };
    Ok((planned, staged, apply))
}

fn as_bytes(apply: &ApplyLayout) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(&(apply.version, &apply.nodes, &apply.dead)).map_err(Failure::new)
}

/// Who would be waited for.
fn who_is_missing(current: &Layout, apply: &ApplyLayout, status: &ClusterStatus) -> Vec<String> {
    let mut words = Vec::new();
    let answers = |id: NodeId| status.nodes.iter().any(|told| told.id == id.0);
    for spec in current.nodes() {
        if !answers(spec.id) && !apply.dead.contains(&spec.id) {
            words.push(format!(
                "{} does not answer: the change waits until it is back, for what it holds has to be read. If it is gone for good, \
                 stage it with --dead.",
                spec.name
            ));
        }
        if answers(spec.id) && apply.dead.contains(&spec.id) {
            words.push(format!(
                "{} is to be declared dead, and answers: stage it without --dead, so that what it alone may hold is kept.",
                spec.name
            ));
        }
    }
    words
}

fn what_speaks_against(current: &Layout, next: &Layout, apply: &ApplyLayout) -> Vec<String> {
    let mut words = Vec::new();
    for spec in &apply.nodes {
        if let Some(old) = current.node(spec.id)
            && old.region != spec.region
        {
            words.push(format!(
                "{} goes to another region: all that it holds moves.",
                spec.name
            ));
        }
    }
    for region in next.regions() {
        let nodes = next.nodes().iter().filter(|n| n.region == region);
        let zones: BTreeSet<&str> = nodes.clone().map(|n| n.zone.as_str()).collect();
        let copies = usize::from(next.replicas());
        let count = nodes.count();
        if count < copies {
            words.push(format!(
                "Region {region} has {count} nodes then, and a bucket has {copies} copies in it: there will be {count}."
            ));
        } else if zones.len() < copies {
            words.push(format!(
                "Region {region} has {} zones then, and a bucket has {copies} copies in it: two of them are in one zone.",
                zones.len()
            ));
        }
    }
    for region in current.regions() {
        if !next.regions().any(|r| r == region) {
            words.push(format!(
                "Region {region} has no nodes any more then. It is refused if some bucket is in such regions alone."
            ));
        }
    }
    words
}

impl Planned {
    fn new(
        current: &Layout,
        next: &Layout,
        staged: &Staged,
        status: &ClusterStatus,
        concerns: Vec<String>,
    ) -> Planned {
        let (before, after) = (current.load(), next.load());
        // What one copy of a partition weighs, of what the nodes hold now.
        let bytes: u64 = status.nodes.iter().map(|told| told.disk_bytes).sum();
        let told = status.nodes.iter().map(|told| NodeId(told.id));
        let seats: u64 = told
            .filter_map(|id| before.get(&id))
            .map(|load| u64::from(load.seats))
            .sum();
        let each = bytes / seats.max(1);
        let mut nodes = Vec::new();
        let ids: BTreeSet<NodeId> = before.keys().chain(after.keys()).copied().collect();
        for id in ids {
            let holds = |layout: &Layout, partition: Partition| {
                let mut regions = layout.regions();
                regions.any(|region| layout.seats(partition, region).any(|n| n == id))
            };
            let (mut gains, mut loses) = (0, 0);
            for partition in (0..current.partitions()).map(Partition) {
                match (holds(current, partition), holds(next, partition)) {
                    (false, true) => gains += 1,
                    (true, false) => loses += 1,
                    _ => {}
                }
            }
            let spec = next.node(id).or(current.node(id)).expect("one has it");
            let seats = |load: &BTreeMap<NodeId, quorate_ring::Load>| {
                load.get(&id).map_or(0, |load| load.seats)
            };
            nodes.push(PlannedNode {
                id,
                name: spec.name.clone(),
                region: spec.region.clone(),
                zone: spec.zone.clone(),
                weight: next.node(id).map_or(0, |spec| spec.weight),
                partitions: seats(&before),
                partitions_then: seats(&after),
                gains,
                loses,
                bytes_gained: u64::from(gains) * each,
            });
        }
        let most = nodes.iter().map(|node| node.bytes_gained).max();
        let staged = staged.changes.iter();
        Planned {
            version: next.version(),
            plan: String::new(),
            obstacles: Vec::new(),
            staged: staged
                .map(|(name, change)| (name.clone(), change.words()))
                .collect(),
            partitions_moved: nodes.iter().map(|node| node.gains).sum(),
            bytes_moved: nodes.iter().map(|node| node.bytes_gained).sum(),
            seconds: most.unwrap_or(0).div_ceil(FILL_BYTES_PER_SECOND),
            nodes,
            concerns,
        }
    }

    /// Whether anything is staged.
    pub(super) fn is_empty(&self) -> bool {
        self.staged.is_empty()
    }

    fn show(&self) -> Result<(), Failure> {
        if self.is_empty() {
            output::line("Nothing is staged.")?;
            output::remark("Stage something with: quorate cluster join|leave|replace|weight|place");
            return Ok(());
        }
        for (name, words) in &self.staged {
            output::line(&format!("{name} {words}"))?;
        }
        output::line("")?;
        let headings = [
            "NODE",
            "REGION",
            "ZONE",
            "WEIGHT",
            "PARTITIONS",
            "THEN",
            "GAINS",
            "LOSES",
            "BYTES",
        ];
        let mut table = output::table(&headings);
        for node in &self.nodes {
            let weight = match node.weight {
                0 => "-".to_owned(),
                weight => weight.to_string(),
            };
            table.add_row([
                node.name.clone(),
                node.region.clone(),
                node.zone.clone(),
                weight,
                node.partitions.to_string(),
                node.partitions_then.to_string(),
                node.gains.to_string(),
                node.loses.to_string(),
                match node.gains {
                    0 => "-".to_owned(),
                    _ => human_bytes(node.bytes_gained),
                },
            ]);
        }
        output::line(&table.trim_fmt())?;
        output::line(&format!(
            "\n{} copies of partitions move, about {}: {} or more by the default budget.",
            self.partitions_moved,
            human_bytes(self.bytes_moved),
            humantime::format_duration(Duration::from_secs(self.seconds.max(1)))
        ))?;
        for concern in &self.concerns {
            output::line(&format!("! {concern}"))?;
        }
        output::remark(&format!(
            "\nDo it with: quorate cluster apply --version {} --plan {}\nTake it back with: quorate cluster revert",
            self.version, self.plan
        ));
        Ok(())
    }
}
