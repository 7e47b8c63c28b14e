//! Where a request goes, and what follows from what happened there. No I/O, no clock: the driver tells.

use std::collections::VecDeque;
use std::time::Duration;

use quorate_protocol::{Account, Answer, Refusal, Request};
use quorate_ring::{Layout, NodeId, ReplicaSet};

use crate::error::Error;

/// Copies in each region of a bucket that nobody created. Where a bucket has others, the node asked forwards.
const COPIES: u8 = 3;

/// What is known of the way to a node; the better, the earlier in the order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Standing {
    /// A connection is open.
    Open,
    /// None was tried, or it is time to try again.
    Untried,
    /// It failed a moment ago.
    Failing,
}

/// The layout as a way to order nodes.
#[derive(Debug)]
pub(crate) struct Routes {
    layout: Layout,
    set: ReplicaSet,
}

impl Routes {
    pub(crate) fn new(layout: Layout) -> Self {
        let set = ReplicaSet::new(COPIES, None).expect("three copies are within bounds");
        Routes { layout, set }
    }

    /// Every node once: the primaries of the key first, then those in their stead. Within both, open connections first,
    /// and the order of the preference list where that says nothing, so that keys spread over nodes.
    pub(crate) fn candidates(
        &self,
        request: &Request,
        standing: impl Fn(NodeId) -> Standing,
    ) -> VecDeque<NodeId> {
        let Some((bucket, key)) = request.target() else {
            let mut nodes: Vec<NodeId> = self.layout.nodes().iter().map(|n| n.id).collect();
            nodes.sort_by_key(|node| standing(*node));
            return nodes.into();
        };
        let partition = self.layout.partition_of(bucket, key.as_bytes());
        let mut preference = self.layout.preference(partition, &self.set);
        for part in [&mut preference.primaries, &mut preference.fallbacks] {
            part.sort_by_key(|node| standing(*node));
        }
        // A node that failed a moment ago comes last even if it is a primary: any other can forward.
        let (mut good, failing): (Vec<_>, Vec<_>) = preference
            .primaries
            .into_iter()
            .chain(preference.fallbacks)
            .partition(|node| standing(*node) < Standing::Failing);
        good.extend(failing);
        good.into()
    }

    /// The first primary of a request's key: where it would go if every connection were open.
    pub(crate) fn home(&self, request: &Request) -> Option<NodeId> {
        self.candidates(request, |_| Standing::Open)
            .front()
            .copied()
    }
}

/// What happened at one node.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Nothing was sent.
    NotSent(String),
    /// It was sent, and the connection broke before an answer came.
    Lost(String),
    /// It was answered.
    Answered(Answer),
}

/// One request on its way through the candidates.
#[derive(Debug)]
pub(crate) struct Journey {
    /// Whether sending it twice could do more than sending it once.
    write: bool,
    candidates: VecDeque<NodeId>,
    /// The first refusal: of all that was heard it says most about why nothing was done.
    refused: Option<(String, Refusal)>,
    lost: Option<(String, String)>,
    tried: Vec<String>,
    /// The account that came with what is told in the end.
    pub(crate) account: Option<Account>,
    /// Whether a node may have it.
    sent: bool,
}

impl Journey {
    pub(crate) fn new(request: &Request, candidates: VecDeque<NodeId>) -> Self {
        Journey {
            write: request.is_write(),
            candidates,
            refused: None,
            lost: None,
            tried: Vec::new(),
            account: None,
            sent: false,
        }
    }

    /// Whether some node may have been sent it when its time was up.
    pub(crate) fn was_sent(&self) -> bool {
        self.sent
    }

    /// The node to try now; `None` when the journey is over.
    pub(crate) fn next(&mut self) -> Option<NodeId> {
        self.candidates.pop_front()
    }

    /// Takes what happened at a node; `Some` ends the journey.
    pub(crate) fn happened(
        &mut self,
        node: &str,
        outcome: Outcome,
    ) -> Option<Result<Answer, Error>> {
        let node = node.to_owned();
        let outcome = match outcome {
            Outcome::Answered(Answer::Explained(explained)) => match explained.open() {
                Ok((answer, account)) => {
                    if self.refused.is_none() || !answer.is_passing() {
                        self.account = Some(account);
                    }
                    Outcome::Answered(answer)
                }
                Err(what) => {
                    let write = self.write;
                    return Some(Err(Error::Unexpected { node, what, write }));
                }
            },
            outcome => outcome,
        };
        match outcome {
            Outcome::NotSent(reason) => self.tried.push(format!("{node}: {reason}")),
            Outcome::Lost(reason) if self.write => {
                let write = true;
                return Some(Err(Error::Lost {
                    node,
                    reason,
                    write,
                }));
            }
            Outcome::Lost(reason) => self.lost = Some((node, reason)),
            Outcome::Answered(Answer::Refused(refusal)) if refusal.is_passing() => {
                self.refused.get_or_insert((node, refusal));
            }
            Outcome::Answered(Answer::Refused(refusal)) => {
                return Some(Err(Error::Refused { node, refusal }));
            }
            Outcome::Answered(Answer::Unmet(unmet)) => {
                return Some(Err(Error::Unmet { node, unmet }));
            }
            Outcome::Answered(answer) => return Some(Ok(answer)),
        }
        None
    }

    /// What to say when there is no node left to try.
    pub(crate) fn exhausted(&mut self) -> Error {
        if let Some((node, refusal)) = self.refused.take() {
            return Error::Refused { node, refusal };
        }
        match self.lost.take() {
            Some((node, reason)) => {
                let write = false;
                Error::Lost {
                    node,
                    reason,
                    write,
                }
            }
            None => Error::Unreachable {
                tried: std::mem::take(&mut self.tried),
            },
        }
    }

    /// What to say when the time is up; `sent` if the node that is being tried may have the request.
    pub(crate) fn out_of_time(&mut self, after: Duration, sent: bool) -> Error {
        self.sent |= sent;
        if sent || (self.refused.is_none() && self.tried.is_empty() && self.lost.is_none()) {
            let write = self.write && sent;
            return Error::TimedOut { after, write };
        }
        self.exhausted()
    }
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{Explained, Get, Options, Put, Unmet, Value};
    use quorate_ring::{ClusterId, LayoutSpec, NodeSpec};

    use super::*;

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

    fn get() -> Request {
        Request::Get(Get {
            bucket: "b".into(),
            key: "k".into(),
            options: Options::default(),
        })
    }

    fn put() -> Request {
        Request::Put(Put {
            bucket: "b".into(),
            key: "k".into(),
            value: Value::new("v"),
            context: None,
            condition: None,
            options: Options::default(),
            lifetime: None,
        })
    }

    #[test]
    fn primaries_come_first_and_failing_nodes_last() {
        let layout = layout(5);
        let set = ReplicaSet::new(3, None).unwrap();
        let preference = layout.preference(layout.partition_of("b", b"k"), &set);
        let routes = Routes::new(layout);

        let all: Vec<NodeId> = routes.candidates(&get(), |_| Standing::Untried).into();
        assert_eq!(all[..3], preference.primaries);
        assert_eq!(all[3..], preference.fallbacks);

        let open = preference.primaries[2];
        let failing = preference.primaries[0];
        let standing = |node| match node {
            n if n == open => Standing::Open,
            n if n == failing => Standing::Failing,
            _ => Standing::Untried,
        };
        let some = routes.candidates(&get(), standing);
        assert_eq!((some[0], some[4], some.len()), (open, failing, 5));
        assert_eq!(routes.home(&get()), Some(failing));
        assert_eq!(routes.candidates(&Request::Describe, standing)[0], open);
    }

    #[test]
    fn a_write_that_may_have_happened_is_not_sent_twice() {
        let nodes = || VecDeque::from([NodeId(1), NodeId(2)]);
        let mut journey = Journey::new(&put(), nodes());
        journey.next();
        assert!(
            journey
                .happened("node-1", Outcome::NotSent("refused".into()))
                .is_none()
        );
        journey.next();
        let error = journey
            .happened("node-2", Outcome::Lost("reset".into()))
            .unwrap()
            .unwrap_err();
        assert!(error.may_have_happened());
        assert!(
            error.to_string().contains("may or may not have happened"),
            "{error}"
        );

        let mut journey = Journey::new(&get(), nodes());
        journey.next();
        assert!(
            journey
                .happened("node-1", Outcome::Lost("reset".into()))
                .is_none()
        );
        assert_eq!(journey.next(), Some(NodeId(2)));
        let answer = journey.happened("node-2", Outcome::Answered(Answer::Absent));
        assert!(matches!(answer, Some(Ok(Answer::Absent))));
    }

    #[test]
    fn passing_refusals_are_tried_elsewhere_and_the_first_is_told() {
        let mut journey = Journey::new(&put(), VecDeque::from([NodeId(1), NodeId(2)]));
        let refusal = Refusal::Unavailable {
            needed: 2,
            answered: 1,
        };
        let refused = Outcome::Answered(Answer::Refused(refusal.clone()));
        assert!(journey.happened("node-1", refused).is_none());
        assert!(
            journey
                .happened("node-2", Outcome::NotSent("no answer".into()))
                .is_none()
        );
        let error = journey.exhausted();
        assert_eq!(error.refusal(), Some(&refusal));
        assert!(!error.may_have_happened());

        let mut journey = Journey::new(&put(), VecDeque::from([NodeId(1), NodeId(2)]));
        let refused = Outcome::Answered(Answer::Refused(Refusal::Impossible("w > n".into())));
        assert!(journey.happened("node-1", refused).unwrap().is_err());
        let unmet = Unmet {
            needed: 2,
            answered: 1,
            timed_out: true,
            may_have_written: true,
        };
        let error = journey.happened("node-1", Outcome::Answered(Answer::Unmet(unmet)));
        assert!(error.unwrap().unwrap_err().may_have_happened());
    }

    #[test]
    fn an_account_is_kept_with_what_it_is_about() {
        let explained = |answer: &Answer, coordinator: &str| {
            let account = Account {
                coordinator: coordinator.to_owned(),
                ..Account::default()
            };
            Outcome::Answered(Answer::Explained(Explained::new(answer, account)))
        };
        let unavailable = Answer::Refused(Refusal::Unavailable {
            needed: 2,
            answered: 1,
        });
        let by = |journey: &Journey| journey.account.as_ref().map(|a| a.coordinator.clone());
        let journey = || Journey::new(&put(), VecDeque::from([NodeId(1), NodeId(2)]));

        // Refused by both: the first is told, and explained.
        let mut refused = journey();
        assert!(
            refused
                .happened("a", explained(&unavailable, "a"))
                .is_none()
        );
        assert!(
            refused
                .happened("b", explained(&unavailable, "b"))
                .is_none()
        );
        assert!(matches!(refused.exhausted(), Error::Refused { node, .. } if node == "a"));
        assert_eq!(by(&refused).as_deref(), Some("a"));

        // Answered by the second.
        let mut answered = journey();
        assert!(
            answered
                .happened("a", explained(&unavailable, "a"))
                .is_none()
        );
        let answer = answered.happened("b", explained(&Answer::Deleted, "b"));
        assert!(matches!(answer, Some(Ok(Answer::Deleted))));
        assert_eq!(by(&answered).as_deref(), Some("b"));

        // A condition that does not hold is an error that explains itself.
        let mut failed = journey();
        let refusal = Answer::Refused(Refusal::ConditionFailed("it stands".into()));
        let error = failed.happened("a", explained(&refusal, "a"));
        let error = error.expect("no other node is asked").unwrap_err();
        assert!(matches!(error.refusal(), Some(Refusal::ConditionFailed(_))));
        assert_eq!(by(&failed).as_deref(), Some("a"));

        // What cannot be opened may have happened.
        let nested = Answer::Explained(Explained::new(&Answer::Deleted, Account::default()));
        let error = journey().happened("a", explained(&nested, "a"));
        assert!(error.unwrap().unwrap_err().may_have_happened());
    }

    #[test]
    fn time_that_ran_out_before_sending_changed_nothing() {
        let after = Duration::from_secs(5);
        let journey = || Journey::new(&put(), VecDeque::new());
        assert!(journey().out_of_time(after, true).may_have_happened());
        assert!(!journey().out_of_time(after, false).may_have_happened());
    }
}
