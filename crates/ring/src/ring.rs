//! The seats of one region, laid out for reading.

/// One region's part of a layout. Nodes are named by their position among the layout's nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) region: String,
    /// Seats of each partition: the lesser of the layout's replicas and the region's nodes.
    copies: usize,
    /// How many nodes the region has.
    members: usize,
    /// For each partition all nodes of the region, none twice, in the order in which a walk meets them:
    /// the partition's seats first, then those of the partitions that follow clockwise, at last nodes
    /// without any seat, by id. It takes 2 bytes a partition and node (6 KiB for a dozen nodes with 256
    /// partitions) and spares each request the walk, which goes round the whole ring for a node with
    /// few seats.
    orders: Vec<u16>,
}

impl Ring {
    /// The ring of a region with these nodes, sorted, and these lists of seats, one for each partition:
    /// all of one length, of distinct nodes of the region.
    pub(crate) fn new(region: &str, members: &[u16], lists: &[Vec<u16>]) -> Ring {
        let copies = lists.first().map_or(0, Vec::len);
        let mut orders = vec![0; lists.len() * members.len()];
        // Going round backwards, each partition's seats move to the front of the order of its
        // successor. The first round only finds the order that the last partition continues with.
        let mut order = members.to_vec();
        for partition in (0..lists.len()).rev().chain((0..lists.len()).rev()) {
            let list = &lists[partition];
            let others = order.iter().filter(|node| !list.contains(node));
            order = list.iter().chain(others).copied().collect();
            orders[partition * members.len()..][..members.len()].copy_from_slice(&order);
        }
        Ring {
            region: region.to_owned(),
            copies,
            members: members.len(),
            orders,
        }
    }

    /// All nodes of the region as a walk from this partition meets them.
    pub(crate) fn order(&self, partition: usize) -> &[u16] {
        &self.orders[partition * self.members..][..self.members]
    }

    /// The partition's seats.
    pub(crate) fn list(&self, partition: usize) -> &[u16] {
        &self.order(partition)[..self.copies]
    }

    /// The seats of all partitions, in ring order.
    pub(crate) fn lists(&self) -> impl Iterator<Item = &[u16]> {
        self.orders
            .chunks(self.members)
            .map(|order| &order[..self.copies])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_go_on_clockwise_and_end_with_who_has_no_seat() {
        let lists = [vec![5, 3], vec![3, 5], vec![3, 9], vec![9, 5]];
        let ring = Ring::new("eu", &[2, 3, 4, 5, 9], &lists);
        assert_eq!(ring.order(0), [5, 3, 9, 2, 4]);
        assert_eq!(ring.order(1), [3, 5, 9, 2, 4]);
        assert_eq!(ring.order(2), [3, 9, 5, 2, 4]);
        assert_eq!(ring.order(3), [9, 5, 3, 2, 4]);
        assert!(ring.lists().eq(lists.iter()));
    }
}
