//! Frames between two well-behaved peers.

mod common;

use std::time::Duration;

use bytes::Bytes;
use common::{Pair, calm, pair, run};
use quorate_transport::{
    CloseReason, Connection, Endpoint, Expected, Identity, SendError, Tuning, resolve,
};

const MIB: usize = 1024 * 1024;

/// Frames of a connection until there are so many.
async fn collect(connection: &mut Connection, count: usize) -> Vec<Bytes> {
    let mut frames = Vec::new();
    while frames.len() < count {
        frames.extend(connection.recv().await.expect("the connection is open"));
    }
    frames
}

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length)
        .map(|i| (i.wrapping_mul(31) >> 3) as u8 ^ seed)
        .collect()
}

#[test]
fn frames_of_all_sizes_go_both_ways() {
    run(async {
        let mut pair = pair(calm());
        let (mut near, mut far) = pair.connect().await;
        assert_eq!(near.peer(), &Identity::Node(1));
        assert_eq!(far.peer(), &common::client());
        assert_eq!(near.remote_address(), pair.node.local_addr());

        let sizes = [1, 100, 64 * 1024, 64 * 1024 + 1, MIB, 8 * MIB, 2, 9 * MIB];
        let bodies: Vec<_> = sizes
            .iter()
            .map(|size| pattern(*size, *size as u8))
            .collect();
        for body in &bodies {
            near.send(body.clone()).unwrap();
            far.send(body.clone()).unwrap();
        }
        let (mut at_far, mut at_near) = tokio::join!(
            collect(&mut far, sizes.len()),
            collect(&mut near, sizes.len())
        );
        let mut expected = bodies;
        expected.sort();
        at_far.sort();
        at_near.sort();
        assert!(
            at_far == expected && at_near == expected,
            "some frame was lost or changed"
        );
    });
}

#[test]
fn small_frames_keep_their_order_and_come_in_batches() {
    run(async {
        let mut pair = pair(calm());
        let (near, mut far) = pair.connect().await;
        let count = 20_000u32;
        for n in 0..count {
            near.send(n.to_be_bytes().to_vec()).unwrap();
        }
        let (mut next, mut reads) = (0, 0);
        while next < count {
            reads += 1;
            for frame in far.recv().await.unwrap() {
                assert_eq!(frame[..], next.to_be_bytes());
                next += 1;
            }
        }
        assert!(reads < count / 10, "{count} frames took {reads} reads");
    });
}

#[test]
fn small_frames_do_not_wait_behind_a_large_one() {
    run(async {
        let mut pair = pair(calm());
        let (mut near, mut far) = pair.connect().await;
        let large = Bytes::from(pattern(8 * MIB, 1));
        near.send(large.clone()).unwrap();
        far.send(large.clone()).unwrap();
        // Round trips of small frames while both directions are full.
        for n in 0..5u8 {
            near.send(vec![n]).unwrap();
            assert_eq!(
                far.recv().await.unwrap(),
                [vec![n]],
                "something came before the small frame"
            );
            far.send(vec![n]).unwrap();
            assert_eq!(
                near.recv().await.unwrap(),
                [vec![n]],
                "something came before the small frame"
            );
        }
        let (at_far, at_near) = tokio::join!(collect(&mut far, 1), collect(&mut near, 1));
        assert!(at_far[0] == large && at_near[0] == large);
    });
}

#[test]
fn a_peer_that_does_not_read_is_a_backlog_and_not_a_leak() {
    run(async {
        let tuning = Tuning {
            max_queued: 4 * MIB,
            stream_window: MIB,
            connection_window: 4 * MIB,
            ..calm()
        };
        let mut pair = pair(tuning);
        let (near, mut far) = pair.connect().await;
        let frame = Bytes::from(pattern(60 * 1024, 3));
        let mut sent = 0;
        let error = loop {
            match near.send(frame.clone()) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
            tokio::task::yield_now().await;
        };
        assert!(
            matches!(error, SendError::Backlogged { max, .. } if max == 4 * MIB),
            "{error:?}"
        );
        assert!(near.sender().queued() <= 4 * MIB);
        // Nothing is lost, and there is room again once the peer reads.
        let frames = collect(&mut far, sent).await;
        assert!(frames.iter().all(|got| *got == frame));
        while near.sender().queued() > 0 {
            tokio::task::yield_now().await;
        }
        near.send(frame).unwrap();
    });
}

#[test]
fn what_the_peer_does_not_take_is_refused_here() {
    run(async {
        let mut pair = pair(Tuning {
            max_frame: 100_000,
            ..calm()
        });
        let (mut near, mut far) = pair.connect().await;
        let error = near.send(vec![0; 100_001]).unwrap_err();
        assert_eq!(
            error,
            SendError::TooLarge {
                length: 100_001,
                max: 100_000
            }
        );
        assert_eq!(near.send(Bytes::new()), Err(SendError::Empty));
        near.send(vec![0; 100_000]).unwrap();
        assert_eq!(far.recv().await.unwrap()[0].len(), 100_000);
        Pair::works(&mut near, &mut far).await;
    });
}

#[test]
fn finishing_delivers_everything_first() {
    run(async {
        let mut pair = pair(calm());
        let (near, mut far) = pair.connect().await;
        near.send(pattern(8 * MIB, 5)).unwrap();
        for n in 0..1_000u32 {
            near.send(n.to_be_bytes().to_vec()).unwrap();
        }
        let sender = near.sender();
        let finishing = tokio::spawn(async move { sender.finish(Duration::from_secs(10)).await });
        let mut frames = 0;
        while let Some(batch) = far.recv().await {
            frames += batch.len();
        }
        assert_eq!(frames, 1_001);
        assert_eq!(near.send("more"), Err(SendError::Closed));
        assert_eq!(
            finishing.await.unwrap(),
            CloseReason::Local("finished".into())
        );
        assert_eq!(
            far.closed().await,
            CloseReason::Peer {
                code: 0,
                reason: "finished".into()
            }
        );
    });
}

#[test]
fn closing_and_dropping_end_the_connection_at_both_ends() {
    run(async {
        let mut pair = pair(calm());
        let (near, mut far) = pair.connect().await;
        near.close("enough");
        assert_eq!(near.closed().await, CloseReason::Local("enough".into()));
        assert_eq!(near.send("x"), Err(SendError::Closed));
        assert_eq!(far.recv().await, None);
        assert_eq!(
            far.closed().await,
            CloseReason::Peer {
                code: 0,
                reason: "enough".into()
            }
        );

        let (near, mut far) = pair.connect().await;
        let sender = near.sender();
        drop(near);
        assert_eq!(
            sender.closed().await,
            CloseReason::Local("the receiver was dropped".into())
        );
        assert!(sender.is_closed());
        assert_eq!(far.recv().await, None);
    });
}

#[test]
fn no_task_outlives_its_connection_and_endpoint() {
    run(async {
        let mut pair = pair(calm());
        let tasks = || {
            tokio::runtime::Handle::current()
                .metrics()
                .num_alive_tasks()
        };
        let before = tasks();
        let mut open = Vec::new();
        for _ in 0..5 {
            open.push(pair.connect().await);
        }
        assert!(tasks() > before);
        drop(open);
        // QUIC keeps a closed connection for three timeouts, to answer late packets.
        while tasks() > before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        drop(pair);
        while tasks() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn closing_an_endpoint_tells_everybody() {
    run(async {
        let mut pair = pair(calm());
        let (near, _far) = pair.connect().await;
        pair.node.close("the node shuts down");
        pair.node.wait_idle(Duration::from_secs(5)).await;
        let reason = CloseReason::Peer {
            code: 0,
            reason: "the node shuts down".into(),
        };
        assert_eq!(near.closed().await, reason);
        assert!(pair.acceptor.accept().await.is_none());
        assert!(
            pair.node
                .dial(pair.node.local_addr(), Expected::AnyNode)
                .await
                .is_err()
        );
    });
}

#[test]
fn nodes_dial_each_other_over_ipv6() {
    run(async {
        let authority = quorate_transport::Authority::create(common::CLUSTER).unwrap();
        let one = common::credentials(&authority, Identity::Node(1));
        let two = common::credentials(&authority, Identity::Node(2));
        let Ok((one, mut acceptor)) = Endpoint::bind("[::1]:0".parse().unwrap(), &one, calm())
        else {
            return; // This machine has no IPv6.
        };
        let (two, _other) = Endpoint::bind("[::]:0".parse().unwrap(), &two, calm()).unwrap();
        let (dialled, accepted) = tokio::join!(
            two.dial(one.local_addr(), Expected::Node(1)),
            acceptor.accept()
        );
        let (mut near, mut far) = (dialled.unwrap(), accepted.unwrap());
        assert_eq!(far.peer(), &Identity::Node(2));
        Pair::works(&mut near, &mut far).await;
    });
}

#[test]
fn addresses_are_resolved() {
    run(async {
        assert_eq!(
            resolve("127.0.0.1:7401").await.unwrap(),
            ["127.0.0.1:7401".parse().unwrap()]
        );
        assert_eq!(
            resolve("[::1]:7401").await.unwrap(),
            ["[::1]:7401".parse().unwrap()]
        );
        let local = resolve("localhost:7401").await.unwrap();
        assert!(
            local
                .iter()
                .all(|address| address.ip().is_loopback() && address.port() == 7401)
        );
        for bad in [
            "",
            "localhost",
            "localhost:",
            "localhost:x",
            "localhost:70000",
            ":7401",
            "::1:7401",
            "[::1]",
            "http://a:1",
        ] {
            let error = resolve(bad).await.unwrap_err();
            assert!(
                error.to_string().contains("write host:port"),
                "{bad}: {error}"
            );
        }
    });
}
