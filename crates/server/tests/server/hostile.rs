//! Clients with good certificates and bad manners.

use std::time::Duration;

use quorate_client::ClientConfig;
use quorate_protocol::{
    Answer, BucketId, Get, Header, Message, Options, Put, Read, ReplicaRequest, Request, RequestId,
    Value, VnodeId,
};
use quorate_ring::{Partition, ReplicaSet};
use quorate_transport::{Connection, Credentials, Endpoint, Expected, Tuning};

use crate::common::{Cluster, run};

async fn raw(config: &ClientConfig) -> Connection {
    let credentials = Credentials::load(&config.ca, &config.certificate, &config.key).unwrap();
    let endpoint = Endpoint::dialler(&credentials, Tuning::default()).unwrap();
    endpoint
        .dial(config.endpoints[0].parse().unwrap(), Expected::Node(1))
        .await
        .unwrap()
}

fn get(key: &str) -> Request {
    Request::Get(Get {
        bucket: "b".into(),
        key: key.into(),
        options: Options::default(),
    })
}

async fn answer(connection: &mut Connection) -> Message {
    let frames = connection.recv().await.expect("an answer");
    Message::decode(&frames[0]).unwrap()
}

#[test]
fn who_breaks_the_rules_is_cut_off_and_harms_nobody_else() {
    let cluster = Cluster::start(3);
    let config = cluster.client_config();
    run(async {
        let mut bystander = raw(&config).await;
        let vnode = VnodeId {
            partition: Partition(0),
            set: ReplicaSet::new(3, None).unwrap().id(),
        };
        let read = ReplicaRequest::Read(Read {
            vnode,
            bucket: BucketId::new("b", 0),
            key: "k".into(),
            digest_only: false,
            hinted: false,
        });
        let forwarded = Header {
            forwarded: true,
            ..Header::default()
        };
        let disguised = Header {
            principal: Some("somebody".into()),
            ..Header::default()
        };
        let wrong = [
            Message::Replica(RequestId(1), Header::default(), read).encode(),
            Message::Answer(RequestId(1), Answer::Absent).encode(),
            Message::Request(RequestId(1), forwarded, get("k")).encode(),
            Message::Request(RequestId(1), disguised, get("k")).encode(),
            bytes::Bytes::from_static(b"\xffgarbage"),
            bytes::Bytes::from_static(b"\x02\xc1\xc1\xc1"),
        ];
        for frame in wrong {
            let mut connection = raw(&config).await;
            connection.send(frame.clone()).unwrap();
            // What follows in the same batch is not looked at.
            let good = Message::Request(RequestId(2), Header::default(), get("k")).encode();
            connection.send(good).unwrap();
            assert_eq!(connection.recv().await, None, "{frame:?} was answered");

            let good = Message::Request(RequestId(7), Header::default(), get("k")).encode();
            bystander.send(good).unwrap();
            let answered = answer(&mut bystander).await;
            assert_eq!(answered, Message::Answer(RequestId(7), Answer::Absent));
        }
    });
}

#[test]
fn answers_go_to_whoever_asked_and_to_nobody_when_they_left() {
    let cluster = Cluster::start(3);
    let config = cluster.client_config();
    run(async {
        let mut one = raw(&config).await;
        let mut other = raw(&config).await;
        // The same request id on two connections, and one that leaves at once.
        let gone = raw(&config).await;
        for (connection, key) in [(&one, "one"), (&other, "other"), (&gone, "gone")] {
            let put = Request::Put(Put {
                bucket: "b".into(),
                key: key.into(),
                value: Value::new(key),
                context: None,
                condition: None,
                options: Options::default(),
                lifetime: None,
            });
            connection
                .send(Message::Request(RequestId(1), Header::default(), put).encode())
                .unwrap();
        }
        drop(gone);
        for (connection, key) in [(&mut one, "one"), (&mut other, "other")] {
            assert!(matches!(
                answer(connection).await,
                Message::Answer(RequestId(1), Answer::Stored { .. })
            ));
            connection
                .send(Message::Request(RequestId(2), Header::default(), get(key)).encode())
                .unwrap();
            let Message::Answer(RequestId(2), Answer::Found { siblings, .. }) =
                answer(connection).await
            else {
                panic!("{key} was put and is not found");
            };
            assert_eq!(siblings[0].value.data, key.as_bytes());
        }
        // No more comes.
        let more = tokio::time::timeout(Duration::from_millis(50), one.recv()).await;
        assert!(more.is_err(), "{more:?}");
    });
}
