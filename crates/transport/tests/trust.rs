//! Who is let in, who is not, and what each side is told.

mod common;

use std::time::Duration;

use common::{
    ALPN, CLUSTER, Pair, any, calm, client, credentials, forge, hours, node_name, pair, raw_server,
    refused, run, serve,
};
use quorate_transport::{
    Authority, BindError, Credentials, DialError, Endpoint, Expected, Identity, PeerName, Tuning,
};

#[test]
fn another_ca_is_refused_by_both_sides() {
    run(async {
        let pair = pair(calm());
        let stranger = Authority::create(CLUSTER).unwrap();

        let dialler = Endpoint::dialler(&credentials(&stranger, client()), calm()).unwrap();
        let error = dialler
            .dial(pair.node.local_addr(), Expected::Node(1))
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::PeerCertificate { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("another CA"), "{error}");

        let issued = stranger.issue(&client(), common::DAY).unwrap();
        let words = refused(
            &pair,
            Some((&issued.certificate_pem, &issued.key_pem)),
            ALPN,
        )
        .await;
        assert!(words.contains("invalid peer certificate"), "{words}");
    });
}

#[test]
fn a_dialler_learns_that_its_own_certificate_was_refused() {
    run(async {
        // The dialler trusts both CAs, as during a change of CA that the node has not followed yet.
        let pair = pair(calm());
        let newer = Authority::create(CLUSTER).unwrap();
        let issued = newer.issue(&client(), common::DAY).unwrap();
        let both = format!(
            "{}{}",
            pair.authority.certificate_pem(),
            newer.certificate_pem()
        );
        let ahead = Credentials::from_pem(both, &issued.certificate_pem, &issued.key_pem).unwrap();
        let dialler = Endpoint::dialler(&ahead, calm()).unwrap();
        let error = dialler
            .dial(pair.node.local_addr(), Expected::AnyNode)
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::OurCertificate { .. }),
            "{error:?}"
        );
        assert!(
            error.to_string().contains("refused our certificate"),
            "{error}"
        );
    });
}

#[test]
fn a_client_without_a_certificate_is_refused() {
    run(async {
        let pair = pair(calm());
        let words = refused(&pair, None, ALPN).await;
        assert!(words.contains("no certificates"), "{words}");
    });
}

#[test]
fn another_protocol_version_is_refused_by_both_sides() {
    run(async {
        let pair = pair(calm());
        let issued = pair.authority.issue(&client(), common::DAY).unwrap();
        let words = refused(
            &pair,
            Some((&issued.certificate_pem, &issued.key_pem)),
            b"quorate/2",
        )
        .await;
        assert!(words.contains("protocol"), "{words}");

        let node = pair
            .authority
            .issue(&Identity::Node(2), common::DAY)
            .unwrap();
        let address = serve(raw_server(
            &node.certificate_pem,
            &node.key_pem,
            b"quorate/2",
        ));
        let error = pair
            .dialler
            .dial(address, Expected::Node(2))
            .await
            .unwrap_err();
        assert_eq!(
            error,
            DialError::Version {
                address,
                ours: "quorate/1".into()
            }
        );
    });
}

#[test]
fn a_node_that_is_another_is_refused() {
    run(async {
        let mut pair = pair(calm());
        let address = pair.node.local_addr();
        let error = pair
            .dialler
            .dial(address, Expected::Node(2))
            .await
            .unwrap_err();
        let found = PeerName {
            cluster: CLUSTER,
            identity: Identity::Node(1),
        };
        assert_eq!(error, DialError::WrongIdentity { address, found });

        // A client that only has an address takes any node, and learns which.
        let (dialled, _accepted) = tokio::join!(
            pair.dialler.dial(address, Expected::AnyNode),
            pair.acceptor.accept()
        );
        assert_eq!(dialled.unwrap().peer(), &Identity::Node(1));
    });
}

#[test]
fn a_client_is_no_node() {
    run(async {
        let pair = pair(calm());
        let error =
            Endpoint::bind(any(), &credentials(&pair.authority, client()), calm()).unwrap_err();
        assert!(matches!(error, BindError::NotANode(_)), "{error:?}");

        // Whoever ignores that and serves with a client's certificate is not taken for a node.
        let issued = pair.authority.issue(&client(), common::DAY).unwrap();
        let address = serve(raw_server(&issued.certificate_pem, &issued.key_pem, ALPN));
        let error = pair
            .dialler
            .dial(address, Expected::AnyNode)
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::PeerCertificate { .. }),
            "{error:?}"
        );

        // Nor if its certificate lacks the restriction to dialling.
        let name = format!("c-test.{CLUSTER:032x}.quorate");
        let forged = forge(&pair.authority, &[name], hours(-1), hours(1));
        let address = serve(raw_server(&forged.certificate_pem, &forged.key_pem, ALPN));
        let error = pair
            .dialler
            .dial(address, Expected::AnyNode)
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::WrongIdentity { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn another_cluster_under_the_same_ca_is_refused_by_both_sides() {
    run(async {
        let pair = pair(calm());
        let other = CLUSTER + 1;
        let forged = forge(&pair.authority, &[node_name(1, other)], hours(-1), hours(1));

        let ca = pair.authority.certificate_pem();
        let theirs = Credentials::from_pem(ca, &forged.certificate_pem, &forged.key_pem).unwrap();
        let (node, _acceptor) = Endpoint::bind(any(), &theirs, calm()).unwrap();
        let address = node.local_addr();
        let found = PeerName {
            cluster: other,
            identity: Identity::Node(1),
        };
        for expected in [Expected::AnyNode, Expected::Node(1)] {
            let error = pair.dialler.dial(address, expected).await.unwrap_err();
            assert_eq!(
                error,
                DialError::WrongIdentity {
                    address,
                    found: found.clone()
                }
            );
        }

        let words = refused(
            &pair,
            Some((&forged.certificate_pem, &forged.key_pem)),
            ALPN,
        )
        .await;
        assert!(words.contains("and this is cluster"), "{words}");
    });
}

#[test]
fn certificates_of_nobody_and_of_several_are_refused() {
    run(async {
        let pair = pair(calm());
        let several = [node_name(1, CLUSTER), node_name(2, CLUSTER)];
        for (names, words) in [
            (&several[..], "carries 2 Quorate names"),
            (&[], "carries no Quorate name"),
        ] {
            let forged = forge(&pair.authority, names, hours(-1), hours(1));
            let said = refused(
                &pair,
                Some((&forged.certificate_pem, &forged.key_pem)),
                ALPN,
            )
            .await;
            assert!(said.contains(words), "{said}");

            let address = serve(raw_server(&forged.certificate_pem, &forged.key_pem, ALPN));
            let error = pair
                .dialler
                .dial(address, Expected::Node(1))
                .await
                .unwrap_err();
            assert!(
                matches!(error, DialError::PeerCertificate { .. }),
                "{error:?}"
            );
            assert!(error.to_string().contains(words), "{error}");
        }
    });
}

#[test]
fn expired_certificates_are_refused_in_the_handshake() {
    run(async {
        let pair = pair(calm());
        let forged = forge(
            &pair.authority,
            &[node_name(2, CLUSTER)],
            hours(-48),
            hours(-24),
        );
        let said = refused(
            &pair,
            Some((&forged.certificate_pem, &forged.key_pem)),
            ALPN,
        )
        .await;
        assert!(said.contains("expired"), "{said}");

        let address = serve(raw_server(&forged.certificate_pem, &forged.key_pem, ALPN));
        let error = pair
            .dialler
            .dial(address, Expected::Node(2))
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::PeerCertificate { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("expired"), "{error}");
    });
}

#[test]
fn a_certificate_that_is_not_valid_yet_is_refused_in_the_handshake() {
    run(async {
        let pair = pair(calm());
        let forged = forge(
            &pair.authority,
            &[node_name(2, CLUSTER)],
            hours(1),
            hours(48),
        );
        let own = Some((forged.certificate_pem.as_str(), forged.key_pem.as_str()));
        let said = refused(&pair, own, ALPN).await;
        assert!(
            said.contains("not valid yet") || said.contains("not valid before"),
            "{said}"
        );

        let address = serve(raw_server(&forged.certificate_pem, &forged.key_pem, ALPN));
        let error = pair
            .dialler
            .dial(address, Expected::Node(2))
            .await
            .unwrap_err();
        assert!(
            matches!(error, DialError::PeerCertificate { .. }),
            "{error:?}"
        );
    });
}

#[test]
fn nobody_there_is_unreachable_and_soon() {
    run(async {
        let pair = pair(Tuning::default());
        // A socket that is bound and never answers.
        let deaf = std::net::UdpSocket::bind(any()).unwrap();
        let address = deaf.local_addr().unwrap();
        let started = std::time::Instant::now();
        let error = pair
            .dialler
            .dial(address, Expected::AnyNode)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Unreachable { .. }), "{error:?}");
        assert!(
            started.elapsed() < Duration::from_millis(1_500),
            "{:?}",
            started.elapsed()
        );

        let error = pair
            .dialler
            .dial("127.0.0.1:0".parse().unwrap(), Expected::AnyNode)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Local { .. }), "{error:?}");
    });
}

#[test]
fn an_address_in_use_is_named() {
    run(async {
        let pair = pair(calm());
        let taken = pair.node.local_addr();
        let error = Endpoint::bind(
            taken,
            &credentials(&pair.authority, Identity::Node(2)),
            calm(),
        )
        .unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, BindError::InUse(_)), "{error:?}");
        assert!(
            text.contains(&taken.to_string()) && text.contains("configure another port"),
            "{text}"
        );
    });
}

#[test]
fn a_dropped_acceptor_turns_callers_away_and_keeps_its_connections() {
    run(async {
        let mut pair = pair(calm());
        let (mut near, mut far) = pair.connect().await;
        let Pair {
            acceptor,
            dialler,
            node,
            ..
        } = pair;
        drop(acceptor);
        let address = node.local_addr();
        assert_eq!(
            dialler.dial(address, Expected::Node(1)).await.unwrap_err(),
            DialError::Busy { address }
        );
        Pair::works(&mut near, &mut far).await;
    });
}
