//! Peers that break the rules, hang, or talk garbage: each loses its own connection, and nobody else notices.

mod common;

use std::net::UdpSocket;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::{CLUSTER, Pair, any, calm, client, pair, raw_client, raw_peer, run};
use quinn::ConnectionError;
use quorate_transport::{
    Authority, CloseReason, DialError, Endpoint, Expected, Identity, Tuning, Violation,
};

/// The code and words with which the node closed a raw connection.
fn closed_with(error: ConnectionError) -> (u64, String) {
    match error {
        ConnectionError::ApplicationClosed(close) => (
            close.error_code.into_inner(),
            String::from_utf8_lossy(&close.reason).into_owned(),
        ),
        other => panic!("not closed by the node: {other:?}"),
    }
}

#[test]
fn a_bad_length_on_the_shared_stream_closes_that_connection_only() {
    run(async {
        let max = Tuning::default().max_frame as u32;
        let mut pair = pair(calm());
        let (mut near, mut far) = pair.connect().await;
        for (bytes, violation) in [
            (
                u32::MAX.to_be_bytes(),
                Violation::Oversize {
                    announced: u32::MAX,
                    max,
                },
            ),
            (
                (max + 1).to_be_bytes(),
                Violation::Oversize {
                    announced: max + 1,
                    max,
                },
            ),
            (0u32.to_be_bytes(), Violation::Empty),
            // Somebody who speaks HTTP.
            (
                *b"GET ",
                Violation::Oversize {
                    announced: u32::from_be_bytes(*b"GET "),
                    max,
                },
            ),
        ] {
            let (raw, mut send, _recv, mut accepted) = raw_peer(&mut pair).await;
            // A good frame before the bad one is still delivered.
            send.write_all(&[b"\0\0\0\x02ok", &bytes[..]].concat())
                .await
                .unwrap();
            assert_eq!(accepted.recv().await.unwrap(), ["ok"]);
            assert_eq!(accepted.recv().await, None);
            assert_eq!(
                accepted.closed().await,
                CloseReason::Violation(violation.clone())
            );
            assert_eq!(closed_with(raw.closed().await), (1, violation.to_string()));
            Pair::works(&mut near, &mut far).await;
        }
    });
}

#[test]
fn a_bad_large_frame_closes_that_connection_only() {
    run(async {
        let max = Tuning::default().max_frame as u32;
        let mut pair = pair(calm());
        let (mut near, mut far) = pair.connect().await;
        for (bytes, violation) in [
            (
                &(max + 1).to_be_bytes()[..],
                Violation::Oversize {
                    announced: max + 1,
                    max,
                },
            ),
            (b"\0\0\0\0", Violation::Empty),
            (b"\0\x01", Violation::Truncated),
            (b"\0\0\0\x05four", Violation::Truncated),
            (b"\0\0\0\x05more than five", Violation::Trailing),
        ] {
            let (raw, _send, _recv, mut accepted) = raw_peer(&mut pair).await;
            let mut own = raw.open_uni().await.unwrap();
            own.write_all(bytes).await.unwrap();
            let _ = own.finish();
            assert_eq!(accepted.recv().await, None);
            assert_eq!(
                accepted.closed().await,
                CloseReason::Violation(violation.clone())
            );
            assert_eq!(closed_with(raw.closed().await), (1, violation.to_string()));
            Pair::works(&mut near, &mut far).await;
        }

        let (_raw, _send, _recv, accepted) = raw_peer(&mut pair).await;
        let mut own = _raw.open_uni().await.unwrap();
        own.write_all(b"\0\x10\0\0half").await.unwrap();
        own.reset(7u32.into()).unwrap();
        // The reset may overtake the bytes; either way the frame was broken off.
        assert_eq!(
            accepted.closed().await,
            CloseReason::Violation(Violation::Truncated)
        );
    });
}

#[test]
fn a_stream_that_ends_within_a_frame_is_a_violation() {
    run(async {
        let mut pair = pair(calm());
        let (_raw, mut send, _recv, mut accepted) = raw_peer(&mut pair).await;
        send.write_all(b"\0\0\0\x05fou").await.unwrap();
        send.finish().unwrap();
        assert_eq!(accepted.recv().await, None);
        assert_eq!(
            accepted.closed().await,
            CloseReason::Violation(Violation::Truncated)
        );
    });
}

#[test]
fn announcements_without_bytes_hold_up_nobody() {
    run(async {
        let mut pair = pair(calm());
        let (raw, mut send, _recv, mut accepted) = raw_peer(&mut pair).await;
        // All large frames it may have under way, each announced at the largest size, none ever sent.
        let mut held = Vec::new();
        for _ in 0..32 {
            let mut own = raw.open_uni().await.unwrap();
            own.write_all(&(9u32 * 1024 * 1024).to_be_bytes())
                .await
                .unwrap();
            held.push(own);
        }
        send.write_all(b"\0\0\0\x02ok").await.unwrap();
        assert_eq!(accepted.recv().await.unwrap(), ["ok"]);
        let (mut near, mut far) = pair.connect().await;
        Pair::works(&mut near, &mut far).await;
    });
}

#[test]
fn garbage_datagrams_harm_nobody() {
    run(async {
        let mut pair = pair(calm());
        let (mut near, mut far) = pair.connect().await;
        let socket = UdpSocket::bind(any()).unwrap();
        let mut noise = 0x9e37_79b9_7f4a_7c15u64;
        for n in 0..2_000usize {
            let datagram: Vec<u8> = (0..n % 1_300)
                .map(|_| {
                    noise ^= noise << 13;
                    noise ^= noise >> 7;
                    noise ^= noise << 17;
                    noise as u8
                })
                .collect();
            socket.send_to(&datagram, pair.node.local_addr()).unwrap();
            if n % 50 == 0 {
                Pair::works(&mut near, &mut far).await;
            }
        }
        Pair::works(&mut near, &mut far).await;
        let (mut near, mut far) = pair.connect().await;
        Pair::works(&mut near, &mut far).await;
    });
}

#[test]
fn a_caller_that_never_speaks_holds_up_nobody_and_is_put_out() {
    run(async {
        let tuning = Tuning {
            handshake_timeout: Duration::from_millis(500),
            ..calm()
        };
        let mut pair = pair(tuning);
        let issued = pair.authority.issue(&client(), common::DAY).unwrap();
        let shown = Some((&issued.certificate_pem[..], &issued.key_pem[..]));
        let raw = raw_client(shown, b"quorate/1");
        let mute = raw
            .connect(pair.node.local_addr(), "any.quorate")
            .unwrap()
            .await
            .unwrap();
        let (mut near, mut far) = pair.connect().await;
        Pair::works(&mut near, &mut far).await;
        let (code, words) = closed_with(mute.closed().await);
        assert_eq!((code, words.as_str()), (2, "no preamble came in time"));
    });
}

#[test]
fn a_stream_without_the_preamble_is_refused() {
    run(async {
        let pair = pair(calm());
        let issued = pair.authority.issue(&client(), common::DAY).unwrap();
        let raw = raw_client(
            Some((&issued.certificate_pem, &issued.key_pem)),
            b"quorate/1",
        );
        let connection = raw
            .connect(pair.node.local_addr(), "any.quorate")
            .unwrap()
            .await
            .unwrap();
        let (mut send, _recv) = connection.open_bi().await.unwrap();
        send.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        let (code, words) = closed_with(connection.closed().await);
        assert_eq!(
            (code, words.as_str()),
            (2, "the stream does not begin with the preamble")
        );
    });
}

#[test]
fn handshakes_beyond_the_bound_are_turned_away_at_once() {
    run(async {
        let mut pair = pair(Tuning {
            max_handshakes: 1,
            ..calm()
        });
        let issued = pair.authority.issue(&client(), common::DAY).unwrap();
        let raw = raw_client(
            Some((&issued.certificate_pem, &issued.key_pem)),
            b"quorate/1",
        );
        let mute = raw
            .connect(pair.node.local_addr(), "any.quorate")
            .unwrap()
            .await
            .unwrap();
        let address = pair.node.local_addr();
        let error = pair
            .dialler
            .dial(address, Expected::Node(1))
            .await
            .unwrap_err();
        assert_eq!(error, DialError::Busy { address });
        // The slot is free again once the caller is gone.
        mute.close(0u32.into(), b"");
        let connection = loop {
            match pair.dialler.dial(address, Expected::Node(1)).await {
                Ok(connection) => break connection,
                Err(error) => assert_eq!(error, DialError::Busy { address }),
            }
        };
        let accepted = pair.acceptor.accept().await.unwrap();
        assert_eq!(
            (connection.peer(), accepted.peer()),
            (&Identity::Node(1), &client())
        );
    });
}

#[test]
fn a_peer_that_falls_silent_is_noticed_within_a_second_or_so() {
    let authority = Authority::create(CLUSTER).unwrap();
    let node = common::credentials(&authority, Identity::Node(1));
    let (address_tx, address_rx) = mpsc::channel();
    let (over_tx, over_rx) = mpsc::channel::<()>();
    // A node on a thread of its own that stops running its tasks, as if the process were stopped: the socket
    // stays open, and nothing is said.
    let peer = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let held = runtime.block_on(async {
            let (endpoint, mut acceptor) = Endpoint::bind(any(), &node, Tuning::default()).unwrap();
            address_tx.send(endpoint.local_addr()).unwrap();
            let mut connection = acceptor.accept().await.unwrap();
            let frames = connection.recv().await.unwrap();
            connection.send(frames[0].clone()).unwrap();
            // Until the client has the answer.
            let _ = connection.recv().await;
            (endpoint, acceptor, connection)
        });
        let stopped = Instant::now();
        let _ = over_rx.recv();
        drop(held);
        stopped
    });
    let address = address_rx.recv().unwrap();
    let noticed = run(async {
        let dialler = Endpoint::dialler(
            &common::credentials(&authority, client()),
            Tuning::default(),
        )
        .unwrap();
        let mut connection = dialler.dial(address, Expected::Node(1)).await.unwrap();
        connection.send("are you there?").unwrap();
        assert_eq!(connection.recv().await.unwrap(), ["are you there?"]);
        connection.send("stop").unwrap();
        assert_eq!(connection.recv().await, None);
        assert_eq!(connection.closed().await, CloseReason::Silent);
        Instant::now()
    });
    over_tx.send(()).unwrap();
    let took = noticed.duration_since(peer.join().unwrap());
    assert!(
        took < Duration::from_millis(1_500),
        "noticed after {took:?}"
    );
    assert!(
        took > Duration::from_millis(500),
        "noticed after {took:?}: too hasty"
    );
}

#[test]
fn a_quiet_connection_stays_open() {
    run(async {
        let mut pair = pair(Tuning::default());
        let (mut near, mut far) = pair.connect().await;
        // Nothing is said for twice the idle timeout: only the pings keep it.
        let idle = Tuning::default().max_idle * 2;
        assert!(tokio::time::timeout(idle, near.recv()).await.is_err());
        Pair::works(&mut near, &mut far).await;
    });
}
