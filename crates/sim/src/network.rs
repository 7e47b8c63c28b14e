//! Links between nodes: which are cut, and what each node's transport believes about the others.

use rand::Rng;
use rand_chacha::ChaCha12Rng;

/// What one node's transport knows of its connection to another.
#[derive(Clone, Copy, Debug)]
struct View {
    up: bool,
    /// Since when the truth has differed from `up`.
    differs_since: Option<u64>,
    /// How long until that is noticed.
    patience_us: u64,
    /// Which life of the other node the connection leads to.
    epoch: u64,
}

/// A change that a transport noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    Up,
    Down,
}

/// All links of a cluster.
#[derive(Debug)]
pub(crate) struct Network {
    nodes: usize,
    /// Whether what `from` sends to `to` is dropped.
    cut: Vec<Vec<bool>>,
    views: Vec<Vec<View>>,
}

impl Network {
    pub(crate) fn new(nodes: usize) -> Self {
        let view = View {
            up: false,
            differs_since: None,
            patience_us: 0,
            epoch: 0,
        };
        Network {
            nodes,
            cut: vec![vec![false; nodes]; nodes],
            views: vec![vec![view; nodes]; nodes],
        }
    }

    pub(crate) fn carries(&self, from: usize, to: usize) -> bool {
        !self.cut[from][to]
    }

    /// Cuts one direction.
    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cut[from][to] = true;
    }

    /// Cuts all links between the nodes with `side` and those without.
    pub(crate) fn split(&mut self, side: &[bool]) {
        for a in 0..self.nodes {
            for b in 0..self.nodes {
                if side[a] != side[b] {
                    self.cut[a][b] = true;
                }
            }
        }
    }

    /// Mends every link.
    pub(crate) fn mend(&mut self) {
        for row in &mut self.cut {
            row.fill(false);
        }
    }

    /// A node that starts knows nobody.
    pub(crate) fn forget(&mut self, node: usize) {
        for view in &mut self.views[node] {
            view.up = false;
            view.differs_since = None;
        }
    }

    /// The connection of `a` to `b` breaks; says whether there was one.
    pub(crate) fn reset(&mut self, a: usize, b: usize) -> bool {
        let view = &mut self.views[a][b];
        view.differs_since = None;
        std::mem::take(&mut view.up)
    }

    /// Looks at every connection of live nodes: a working one is noticed after some 100 ms, a broken one after about a
    /// second, which is what the transport's keep-alive takes. `epoch` tells the life of a node, if it is alive
    /// and not paused.
    pub(crate) fn look(
        &mut self,
        now: u64,
        rng: &mut ChaCha12Rng,
        epoch: impl Fn(usize) -> Option<u64>,
    ) -> Vec<(usize, usize, Noticed)> {
        let mut noticed = Vec::new();
        for a in 0..self.nodes {
            if epoch(a).is_none() {
                continue;
            }
            for b in (0..self.nodes).filter(|b| *b != a) {
                let life = epoch(b);
                let works = life.is_some() && self.carries(a, b) && self.carries(b, a);
                let view = &mut self.views[a][b];
                let truth = works && (!view.up || life == Some(view.epoch));
                if truth == view.up {
                    view.differs_since = None;
                    continue;
                }
                let since = *view.differs_since.get_or_insert_with(|| {
                    view.patience_us = if view.up {
                        rng.random_range(700_000..1_300_000)
                    } else {
                        rng.random_range(20_000..300_000)
                    };
                    now
                });
                if now - since >= view.patience_us {
                    view.up = truth;
                    view.differs_since = None;
                    view.epoch = life.unwrap_or(view.epoch);
                    noticed.push((a, b, if truth { Noticed::Up } else { Noticed::Down }));
                }
            }
        }
        noticed
    }
}
