//! Who has to take part in a request, and whether they have: pure values beside the conversations that own the timers.

use std::collections::BTreeSet;

use quorate_protocol::{Quorum, Refusal};
use quorate_ring::NodeId;

/// A replica that a request may count on, and the region it sits in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Seat {
    /// The node.
    pub node: NodeId,
    /// Its region, as a number that is the same for all nodes of one region.
    pub region: u16,
}

/// Where a request stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    /// Enough have answered.
    Met,
    /// Enough still may.
    Pending,
    /// So many have failed that enough never will.
    Impossible,
}

impl Verdict {
    /// How it stands where both are needed.
    pub(crate) fn and(self, other: Verdict) -> Verdict {
        match (self, other) {
            (Verdict::Met, Verdict::Met) => Verdict::Met,
            (Verdict::Impossible, _) | (_, Verdict::Impossible) => Verdict::Impossible,
            _ => Verdict::Pending,
        }
    }
}

/// How many of which nodes have to answer: a count for each group, all groups to be met. Acks count distinct physical
/// nodes, as every group lists a node once.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Requirement {
    groups: Vec<Group>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Group {
    members: Vec<NodeId>,
    need: usize,
    /// Whether it counts the replicas of one region, so that nobody from elsewhere can take a place in it.
    regional: bool,
}

impl Requirement {
    /// What `quorum` means for these replicas, seen from `region`. `name` is the parameter's, for the refusal.
    ///
    /// # Errors
    /// A refusal, if it can never be met or asks for nobody where somebody is needed.
    pub(crate) fn new(
        name: &str,
        quorum: Quorum,
        seats: &[Seat],
        region: u16,
        may_be_zero: bool,
    ) -> Result<Self, Refusal> {
        let all = || seats.iter().map(|s| s.node).collect::<Vec<_>>();
        let majority_in = |region: u16| {
            let members: Vec<NodeId> = seats
                .iter()
                .filter(|s| s.region == region)
                .map(|s| s.node)
                .collect();
            Group {
                need: members.len() / 2 + 1,
                members,
                regional: true,
            }
        };
        let groups = match quorum {
            Quorum::Count(0) if may_be_zero => Vec::new(),
            Quorum::Count(0) => {
                return Err(Refusal::Impossible(format!(
                    "{name}=0 asks nobody: {name} is at least 1"
                )));
            }
            Quorum::Count(count) if usize::from(count) > seats.len() => {
                return Err(Refusal::Impossible(format!(
                    "{name}={count} can never be met: this key has {} replicas",
                    seats.len()
                )));
            }
            Quorum::Count(count) => vec![Group {
                members: all(),
                need: usize::from(count),
                regional: false,
            }],
            Quorum::Majority => vec![Group {
                members: all(),
                need: seats.len() / 2 + 1,
                regional: false,
            }],
            Quorum::All => vec![Group {
                members: all(),
                need: seats.len(),
                regional: false,
            }],
            Quorum::Local => {
                let group = majority_in(region);
                if group.members.is_empty() {
                    return Err(Refusal::Impossible(format!(
                        "{name}=local_quorum can never be met here: this key has no replica in the coordinator's region"
                    )));
                }
                vec![group]
            }
            Quorum::Each => {
                let mut regions: Vec<u16> = seats.iter().map(|s| s.region).collect();
                regions.sort_unstable();
                regions.dedup();
                regions.into_iter().map(majority_in).collect()
            }
        };
        Ok(Requirement { groups })
    }

    /// Both this and that.
    #[must_use]
    pub(crate) fn and(mut self, other: Requirement) -> Requirement {
        self.groups.extend(other.groups);
        self
    }

    /// How it stands when `yes` have answered and `no` never will. A node in both counts as yes.
    #[must_use]
    pub(crate) fn verdict(
        &self,
        yes: impl Fn(NodeId) -> bool,
        no: impl Fn(NodeId) -> bool,
    ) -> Verdict {
        self.verdict_by_region(|node, _| yes(node), |node, _| no(node))
    }

    /// The same, where it matters whether a node is counted as one of its region.
    pub(crate) fn verdict_by_region(
        &self,
        yes: impl Fn(NodeId, bool) -> bool,
        no: impl Fn(NodeId, bool) -> bool,
    ) -> Verdict {
        let mut verdict = Verdict::Met;
        for group in &self.groups {
            let yes = |n: &&NodeId| yes(**n, group.regional);
            let met = group.members.iter().filter(yes).count();
            let lost = group
                .members
                .iter()
                .filter(|n| !yes(n) && no(**n, group.regional))
                .count();
            if met >= group.need {
                continue;
            }
            if group.members.len() - lost < group.need {
                return Verdict::Impossible;
            }
            verdict = Verdict::Pending;
        }
        verdict
    }

    /// Whether an answer of this node can help to meet it.
    #[must_use]
    pub(crate) fn counts(&self, node: NodeId) -> bool {
        self.groups.iter().any(|g| g.members.contains(&node))
    }

    /// How many of the nodes it counts are among these.
    #[must_use]
    pub(crate) fn among(&self, is: impl Fn(NodeId) -> bool) -> u32 {
        let members: BTreeSet<NodeId> = self
            .groups
            .iter()
            .flat_map(|g| g.members.iter().copied())
            .collect();
        members.into_iter().filter(|n| is(*n)).count() as u32
    }

    /// It in words, as `r=2 of 3`, if it asks for anybody. `quorum` is what it was made of.
    #[must_use]
    pub(crate) fn words(&self, name: &str, quorum: Quorum) -> Option<String> {
        let groups = self.groups.iter().filter(|g| g.need > 0);
        let counts: Vec<String> = groups
            .map(|g| format!("{} of {}", g.need, g.members.len()))
            .collect();
        if counts.is_empty() {
            return None;
        }
        let whose = match quorum {
            Quorum::Local => " in the coordinator's region",
            Quorum::Each => ", by region",
            _ => "",
        };
        Some(format!("{name}={}{whose}", counts.join(" and ")))
    }

    /// The most nodes any of its groups needs, for messages to people.
    #[must_use]
    pub(crate) fn needed(&self) -> u32 {
        self.groups.iter().map(|g| g.need).max().unwrap_or(0) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seats(regions: &[u16]) -> Vec<Seat> {
        regions
            .iter()
            .enumerate()
            .map(|(i, &region)| Seat {
                node: NodeId(i as u64),
                region,
            })
            .collect()
    }

    fn verdict(quorum: Quorum, regions: &[u16], yes: &[u64], no: &[u64]) -> Verdict {
        Requirement::new("r", quorum, &seats(regions), 1, false)
            .expect("a sound requirement")
            .verdict(|n| yes.contains(&n.0), |n| no.contains(&n.0))
    }

    #[test]
    fn a_majority_of_three_is_two() {
        let q = Quorum::Majority;
        assert_eq!(verdict(q, &[1, 1, 1], &[0], &[]), Verdict::Pending);
        assert_eq!(verdict(q, &[1, 1, 1], &[0, 2], &[]), Verdict::Met);
        assert_eq!(verdict(q, &[1, 1, 1], &[0], &[1, 2]), Verdict::Impossible);
    }

    #[test]
    fn a_local_quorum_ignores_other_regions() {
        let regions = [1, 1, 1, 2, 2, 2];
        assert_eq!(
            verdict(Quorum::Local, &regions, &[3, 4, 5, 0], &[]),
            Verdict::Pending
        );
        assert_eq!(
            verdict(Quorum::Local, &regions, &[0, 1], &[3, 4, 5]),
            Verdict::Met
        );
    }

    #[test]
    fn an_each_quorum_needs_every_region() {
        let regions = [1, 1, 1, 2, 2, 2];
        assert_eq!(
            verdict(Quorum::Each, &regions, &[0, 1, 3], &[]),
            Verdict::Pending
        );
        assert_eq!(
            verdict(Quorum::Each, &regions, &[0, 1, 3, 5], &[2]),
            Verdict::Met
        );
        assert_eq!(
            verdict(Quorum::Each, &regions, &[0, 1], &[3, 4]),
            Verdict::Impossible
        );
    }

    #[test]
    fn what_can_never_be_met_is_refused_with_the_reason() {
        let refused = |q| match Requirement::new("w", q, &seats(&[2, 2, 2]), 1, false) {
            Err(Refusal::Impossible(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(refused(Quorum::Count(4)).contains("w=4"));
        assert!(refused(Quorum::Count(0)).contains("at least 1"));
        assert!(refused(Quorum::Local).contains("region"));
        assert_eq!(
            Requirement::new("pw", Quorum::Count(0), &seats(&[1]), 1, true),
            Ok(Requirement::default())
        );
    }

    #[test]
    fn requirements_in_words() {
        let words = |quorum| {
            let regions = seats(&[1, 1, 1, 2, 2]);
            let requirement = Requirement::new("r", quorum, &regions, 1, true);
            requirement.expect("a sound one").words("r", quorum)
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(words(Quorum::Count(2)), some("r=2 of 5"));
        assert_eq!(words(Quorum::All), some("r=5 of 5"));
        assert_eq!(
            words(Quorum::Local),
            some("r=2 of 3 in the coordinator's region")
        );
        assert_eq!(words(Quorum::Each), some("r=2 of 3 and 2 of 2, by region"));
        assert_eq!(words(Quorum::Count(0)), None);
    }

    #[test]
    fn nothing_needed_is_met_by_nobody() {
        assert_eq!(
            Requirement::default().verdict(|_| false, |_| true),
            Verdict::Met
        );
    }
}
