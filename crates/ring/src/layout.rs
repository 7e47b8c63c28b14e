//! A layout: its making, its successor, its validation.

use crate::assign::Region;
use crate::error::LayoutError;
use crate::form::Form;
use crate::ids::{ClusterId, NodeId, Partition};
use crate::ring::Ring;
use crate::shares::Member;
use crate::spec::{self, LayoutSpec, NodeSpec};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Which node sits where: one version of a cluster's placement.
///
/// Layouts are equal when their [`digest`](Layout::digest)s are. Deserialising validates: a layout
/// from a file or the network that is not whole is refused with what is wrong, whoever made it. The spread
/// over zones and the balance are not part of that, for they are the choice of whoever computed the
/// layout and may be chosen otherwise by another version of this program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Form", into = "Form")]
pub struct Layout {
    /// At least 1.
    version: u64,
    cluster: ClusterId,
    /// A power of two.
    partitions: u16,
    replicas: u8,
    /// Sorted by id, which is unique; names are unique too. Never empty.
    nodes: Vec<NodeSpec>,
    /// One for each region that has nodes, sorted by name.
    rings: Vec<Ring>,
}

/// What a node bears in a layout, summed over all partitions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Partitions of which it has a seat: what a bucket with the layout's number of copies stores on it.
    pub seats: u32,
    /// Partitions in whose list it is the first of its region: what a bucket with one copy stores on it.
    pub firsts: u32,
}

impl Layout {
    /// The first layout of a cluster, version 1.
    ///
    /// It depends on its arguments alone, and not on the order in which the nodes are given.
    ///
    /// # Errors
    ///
    /// What is wrong with the description; see [`LayoutSpec`] and [`NodeSpec`] for the bounds.
    pub fn first(cluster: ClusterId, spec: LayoutSpec) -> Result<Layout, LayoutError> {
        spec.check()?;
        let nodes = spec::sorted_nodes(spec.nodes)?;
        Ok(Layout::deal(
            1,
            cluster,
            spec.partitions,
            spec.replicas,
            nodes,
            None,
        ))
    }

    /// The layout that follows this one when the cluster consists of `nodes`: version + 1, the
    /// same cluster, partitions and replicas.
    ///
    /// It moves the fewest seats that give every node its share: the number a first layout of these
    /// nodes would give it, or one seat or 5 % beside that, with the region's highest seats per weight
    /// as low as can be. Nodes that keep a
    /// seat keep their order in its list, except where the zones would no longer be in turn.
    ///
    /// # Errors
    ///
    /// What is wrong with the nodes, or [`LayoutError::Version`] if there is no next version. This layout
    /// stands as it was.
    pub fn next(&self, nodes: Vec<NodeSpec>) -> Result<Layout, LayoutError> {
        let version = self
            .version
            .checked_add(1)
            .ok_or(LayoutError::Version(self.version))?;
        let nodes = spec::sorted_nodes(nodes)?;
        Ok(Layout::deal(
            version,
            self.cluster,
            self.partitions,
            self.replicas,
            nodes,
            Some(self),
        ))
    }

    /// Deals every region's seats; the arguments are validated.
    fn deal(
        version: u64,
        cluster: ClusterId,
        partitions: u16,
        replicas: u8,
        nodes: Vec<NodeSpec>,
        previous: Option<&Layout>,
    ) -> Layout {
        let mut rings = Vec::new();
        for (region, members) in by_region(&nodes) {
            let zones: BTreeSet<&str> = members
                .iter()
                .map(|&at| nodes[usize::from(at)].zone.as_str())
                .collect();
            let zones: Vec<&str> = zones.into_iter().collect();
            let member = |&at: &u16| Member {
                id: nodes[usize::from(at)].id.0,
                weight: nodes[usize::from(at)].weight,
                zone: zones
                    .binary_search(&nodes[usize::from(at)].zone.as_str())
                    .expect("every node's zone was listed"),
            };
            let followed = previous.and_then(|layout| layout.ring(region).map(|r| (layout, r)));
            let lists = followed.map_or_else(Vec::new, |(layout, ring)| {
                // A node that moved to another region has left this one.
                let stays = |at: &u16| {
                    let id = layout.nodes[usize::from(*at)].id;
                    members
                        .binary_search_by_key(&id, |&at| nodes[usize::from(at)].id)
                        .ok()
                };
                (0..usize::from(partitions))
                    .map(|p| ring.list(p).iter().map(stays).collect())
                    .collect()
            });
            let dealt = Region {
                partitions: usize::from(partitions),
                copies: usize::from(replicas).min(members.len()),
                members: members.iter().map(member).collect(),
                previous: lists,
            }
            .assign();
            let named = |list: Vec<usize>| list.into_iter().map(|v| members[v]).collect();
            let lists: Vec<Vec<u16>> = dealt.into_iter().map(named).collect();
            rings.push(Ring::new(region, &members, &lists));
        }
        Layout {
            version,
            cluster,
            partitions,
            replicas,
            nodes,
            rings,
        }
    }

    /// The layout's number, from 1. A cluster's layouts differ in it.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The cluster it is a layout of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The number of partitions, a power of two that never changes in a cluster's life.
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// Whether the layout has this partition: to be asked of one that came from outside, before it is used.
    pub fn contains(&self, partition: Partition) -> bool {
        partition.0 < self.partitions
    }

    /// The copies in each region for which the lists are made.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// The nodes, sorted by id. There is at least one.
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.nodes
    }

    /// The node with this id, if the layout has it.
    pub fn node(&self, id: NodeId) -> Option<&NodeSpec> {
        let at = self.nodes.binary_search_by_key(&id, |node| node.id).ok()?;
        Some(&self.nodes[at])
    }

    /// The node of this name, if the layout has it. It looks at every node: meant for commands, not for
    /// requests.
    pub fn node_by_name(&self, name: &str) -> Option<&NodeSpec> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The regions that have nodes, sorted.
    pub fn regions(&self) -> impl Iterator<Item = &str> {
        self.rings.iter().map(|ring| ring.region.as_str())
    }

    /// A partition's list in one region, in order; empty if the region has no nodes.
    ///
    /// # Panics
    ///
    /// If the layout does not have that partition.
    pub fn seats(&self, partition: Partition, region: &str) -> impl Iterator<Item = NodeId> {
        let ring = self.ring(region);
        let list = ring.map_or(&[][..], |ring| ring.list(self.index(partition)));
        list.iter().map(|&at| self.nodes[usize::from(at)].id)
    }

    /// The partition of a key: the top bits of `blake3(length of bucket, bucket, key)`, the length in one
    /// byte. The length keeps `("a", "bc")` and `("ab", "c")` apart.
    ///
    /// The answer is the same in every layout of a cluster. Bucket names have at most 128 bytes; a
    /// longer one still gets a partition, only its length is taken modulo 256.
    pub fn partition_of(&self, bucket: &str, key: &[u8]) -> Partition {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&[bucket.len() as u8]);
        hasher.update(bucket.as_bytes());
        hasher.update(key);
        let hash = hasher.finalize();
        let top = u32::from(u16::from_be_bytes([hash.as_bytes()[0], hash.as_bytes()[1]]));
        let bits = self.partitions.trailing_zeros();
        Partition((top >> (16 - bits)) as u16)
    }

    /// What each node bears. Every node is listed, also one without a seat.
    pub fn load(&self) -> BTreeMap<NodeId, Load> {
        let mut loads = vec![Load::default(); self.nodes.len()];
        for ring in &self.rings {
            for list in ring.lists() {
                loads[usize::from(list[0])].firsts += 1;
                for &at in list {
                    loads[usize::from(at)].seats += 1;
                }
            }
        }
        self.nodes.iter().map(|node| node.id).zip(loads).collect()
    }

    /// The blake3 of the layout's canonical encoding: equal for equal layouts and only for those, on
    /// every machine and in every version of this program.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new();
        let text = |hasher: &mut blake3::Hasher, text: &str| {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        };
        hasher.update(b"quorate layout 1");
        hasher.update(&self.version.to_be_bytes());
        hasher.update(&self.cluster.0.to_be_bytes());
        hasher.update(&self.partitions.to_be_bytes());
        hasher.update(&[self.replicas]);
        hasher.update(&(self.nodes.len() as u64).to_be_bytes());
        for node in &self.nodes {
            hasher.update(&node.id.0.to_be_bytes());
            text(&mut hasher, &node.name);
            text(&mut hasher, &node.region);
            text(&mut hasher, &node.zone);
            hasher.update(&node.weight.to_be_bytes());
            text(&mut hasher, &node.quic);
            text(&mut hasher, &node.http);
        }
        // The regions and the length of their lists follow from the nodes.
        for ring in &self.rings {
            for &at in ring.lists().flatten() {
                hasher.update(&self.nodes[usize::from(at)].id.0.to_be_bytes());
            }
        }
        *hasher.finalize().as_bytes()
    }

    pub(crate) fn rings(&self) -> &[Ring] {
        &self.rings
    }

    pub(crate) fn ring(&self, region: &str) -> Option<&Ring> {
        let by_name = |ring: &Ring| ring.region.as_str().cmp(region);
        let at = self.rings.binary_search_by(by_name).ok()?;
        Some(&self.rings[at])
    }

    /// A partition as an index, which it must be: one from outside is checked where it comes in.
    pub(crate) fn index(&self, partition: Partition) -> usize {
        assert!(
            self.contains(partition),
            "partition {partition} of {}",
            self.partitions
        );
        usize::from(partition.0)
    }
}

/// The positions of each region's nodes, in the order of their ids. They fit their type, for
/// [`MAX_NODES`](spec::MAX_NODES) does.
fn by_region(nodes: &[NodeSpec]) -> BTreeMap<&str, Vec<u16>> {
    let mut regions: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for (at, node) in (0..).zip(nodes) {
        regions.entry(&node.region).or_default().push(at);
    }
    regions
}

impl TryFrom<Form> for Layout {
    type Error = LayoutError;

    fn try_from(form: Form) -> Result<Layout, LayoutError> {
        if form.version == 0 {
            return Err(LayoutError::Version(0));
        }
        let spec = LayoutSpec {
            partitions: form.partitions,
            replicas: form.replicas,
            nodes: form.nodes,
        };
        spec.check()?;
        let (partitions, replicas) = (spec.partitions, spec.replicas);
        let nodes = spec::sorted_nodes(spec.nodes)?;
        let regions = by_region(&nodes);
        if !regions.keys().eq(form.seats.keys()) {
            return Err(LayoutError::SeatRegions {
                expected: regions.keys().map(|name| name.to_string()).collect(),
                found: form.seats.into_keys().collect(),
            });
        }
        let mut rings = Vec::with_capacity(regions.len());
        for ((region, members), lists) in regions.iter().zip(form.seats.values()) {
            let copies = usize::from(replicas).min(members.len());
            let lists = checked_lists(region, &nodes, usize::from(partitions), copies, lists)?;
            rings.push(Ring::new(region, members, &lists));
        }
        Ok(Layout {
            version: form.version,
            cluster: form.cluster,
            partitions,
            replicas,
            nodes,
            rings,
        })
    }
}

/// One region's lists as positions among the nodes, or what is wrong with them.
fn checked_lists(
    region: &str,
    nodes: &[NodeSpec],
    partitions: usize,
    copies: usize,
    lists: &[Vec<NodeId>],
) -> Result<Vec<Vec<u16>>, LayoutError> {
    if lists.len() != partitions {
        return Err(LayoutError::SeatLists {
            region: region.to_owned(),
            expected: partitions,
            found: lists.len(),
        });
    }
    (0..)
        .map(Partition)
        .zip(lists)
        .map(|(partition, list)| checked_list(region, nodes, copies, partition, list))
        .collect()
}

fn checked_list(
    region: &str,
    nodes: &[NodeSpec],
    copies: usize,
    partition: Partition,
    list: &[NodeId],
) -> Result<Vec<u16>, LayoutError> {
    let region = region.to_owned();
    if list.len() != copies {
        return Err(LayoutError::SeatCount {
            region,
            partition,
            expected: copies,
            found: list.len(),
        });
    }
    let mut seats = Vec::with_capacity(copies);
    for &node in list {
        let Ok(at) = nodes.binary_search_by_key(&node, |spec| spec.id) else {
            return Err(LayoutError::SeatUnknown {
                region,
                partition,
                node,
            });
        };
        if nodes[at].region != region {
            return Err(LayoutError::SeatElsewhere {
                region,
                partition,
                node,
            });
        }
        let at = at as u16;
        if seats.contains(&at) {
            return Err(LayoutError::SeatTwice {
                region,
                partition,
                node,
            });
        }
        seats.push(at);
    }
    Ok(seats)
}

impl From<Layout> for Form {
    fn from(layout: Layout) -> Form {
        let id = |&at: &u16| layout.nodes[usize::from(at)].id;
        let seats = layout
            .rings
            .iter()
            .map(|ring| {
                let lists = ring.lists().map(|list| list.iter().map(id).collect());
                (ring.region.clone(), lists.collect())
            })
            .collect();
        Form {
            version: layout.version,
            cluster: layout.cluster,
            partitions: layout.partitions,
            replicas: layout.replicas,
            nodes: layout.nodes,
            seats,
        }
    }
}
