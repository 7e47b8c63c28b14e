//! Listing, export and import over real processes: with a node killed, interrupted and resumed, and exactly round.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use quorate_tests::{Cluster, Done, http};

/// Lines that hold everything a value can be.
fn all_sorts() -> String {
    let mut lines = String::new();
    for line in [
        r#"{"bucket":"b","key":"a/text","value":"grüße\n\"zwei\"","content_type":"text/plain","meta":{"z":"1","by":"me"}}"#,
        r#"{"bucket":"b","key":"bytes","value_base64":"/wD+","meta":[["twice","1"],["twice","2"]]}"#,
        r#"{"bucket":"b","key":"empty","value":""}"#,
        r#"{"bucket":"b","key":"several","siblings":[{"value":"one","content_type":"text/plain"},{"value":"two"},{"value_base64":"AA==","meta":{"n":"3"}}]}"#,
        r#"{"bucket":"b","key":"ü\n","value":"the key has a line break"}"#,
    ] {
        lines.push_str(line);
        lines.push('\n');
    }
    lines
}

fn file(cluster: &Cluster, name: &str, content: &str) -> PathBuf {
    let path = cluster.dir().join(name);
    fs::write(&path, content).expect("a file");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path in UTF-8")
}

/// The lines of an export, each with its siblings in one order.
fn canonical(export: &[u8]) -> Vec<serde_json::Value> {
    let lines = export
        .split(|b| *b == b'\n')
        .filter(|line| !line.is_empty());
    let mut lines: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_slice(line).expect("a line of JSON"))
        .collect();
    for line in &mut lines {
        if let Some(siblings) = line.get_mut("siblings").and_then(|s| s.as_array_mut()) {
            siblings.sort_by_key(ToString::to_string);
        }
    }
    lines
}

fn many(bucket: &str, count: usize) -> String {
    let line =
        |i| format!("{{\"bucket\":\"{bucket}\",\"key\":\"{i:06}\",\"value\":\"value {i}\"}}\n");
    (0..count).map(line).collect()
}

#[test]
fn what_is_exported_is_imported_as_it_was() {
    let mut cluster = Cluster::start(3);
    let lines = file(&cluster, "lines", &all_sorts());
    let import = |cluster: &Cluster, arguments: &[&str]| -> Done {
        let all: Vec<&str> = ["import", "-o", "json"]
            .iter()
            .chain(arguments)
            .copied()
            .collect();
        cluster.cli(&all)
    };
    let first = import(&cluster, &[text(&lines)]).expect(0).json();
    assert_eq!(
        (&first["stored"], &first["unchanged"]),
        (&5.into(), &0.into())
    );
    let again = import(&cluster, &[text(&lines)]).expect(0).json();
    assert_eq!(
        (&again["stored"], &again["unchanged"]),
        (&0.into(), &5.into())
    );

    let out = cluster.dir().join("out");
    let done = cluster
        .cli(&["export", "b", "--file", text(&out), "-o", "json"])
        .expect(0)
        .json();
    assert_eq!(
        (&done["keys"], &done["with_siblings"]),
        (&5.into(), &1.into())
    );
    let exported = fs::read(&out).expect("it is there");
    assert_eq!(canonical(&exported), canonical(all_sorts().as_bytes()));
    // An export that is there is not written over.
    let refused = cluster
        .cli(&["export", "b", "--file", text(&out)])
        .expect(1);
    assert!(refused.stderr.contains("--resume"), "{refused:?}");

    // Into another bucket, from standard input, and out again: with a node killed.
    cluster.kill_node(2);
    let mut piped = cluster.command(&["import", "--bucket", "copy", "-"]);
    let mut piped = piped
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let mut stdin = piped.stdin.take().expect("a pipe");
    stdin.write_all(&exported).expect("it reads");
    drop(stdin);
    assert!(piped.wait().expect("it ends").success());
    let copied = cluster.cli(&["export", "copy"]).expect(0);
    let mut expected = canonical(&exported);
    for line in &mut expected {
        line["bucket"] = "copy".into();
    }
    assert_eq!(canonical(&copied.stdout), expected);

    // What the key held besides goes.
    let _ = cluster.cli(&["put", "b", "empty", "more"]).expect(0);
    let mended = import(&cluster, &[text(&lines)]).expect(0).json();
    assert_eq!(
        (&mended["stored"], &mended["unchanged"]),
        (&1.into(), &4.into())
    );
    assert_eq!(cluster.cli(&["get", "b", "empty"]).expect(0).stdout, b"");
}

#[test]
fn a_bucket_is_listed_with_a_node_killed() {
    let mut cluster = Cluster::start(3);
    let lines = file(&cluster, "lines", &many("b", 3_000));
    let _ = cluster.cli(&["import", text(&lines)]).expect(0);
    cluster.kill_node(3);
    let all: Vec<String> = (0..3_000).map(|i| format!("{i:06}")).collect();

    let listed = cluster.cli(&["list", "b"]).expect(0);
    assert!(listed.text().lines().eq(&all));
    let some = cluster
        .cli(&[
            "list", "b", "--prefix", "001", "--after", "001497", "--limit", "4", "-o", "json",
        ])
        .expect(0);
    let expected =
        "{\"key\":\"001498\"}\n{\"key\":\"001499\"}\n{\"key\":\"001500\"}\n{\"key\":\"001501\"}\n";
    assert_eq!(some.text(), expected);
    assert_eq!(cluster.cli(&["list", "none"]).expect(0).text(), "");
    let refused = cluster
        .cli(&["list", "b", "--r", "3", "--timeout", "300ms"])
        .expect(1);
    assert!(
        refused.stderr.contains("3 replicas are needed"),
        "{refused:?}"
    );
    let _ = cluster.cli(&["list", "b", "--limit", "0"]).expect(2);

    // Nobody reads to the end: no error.
    let mut list = cluster.command(&["list", "b"]);
    let mut list = list
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut first = String::new();
    let mut stdout = BufReader::with_capacity(16, list.stdout.take().expect("a pipe"));
    stdout.read_line(&mut first).expect("a line");
    drop(stdout);
    assert_eq!(first, "000000\n");
    assert_eq!(list.wait().expect("it ends").code(), Some(0));

    // Over HTTP as well, from either node, page by page and as a stream.
    for node in [1, 2] {
        let url = format!("http://{}/v1/buckets/b/keys", cluster.address(node));
        let mut answer = http()
            .get(&format!("{url}?limit=2&after=000007"))
            .call()
            .expect("an answer");
        let page: serde_json::Value =
            serde_json::from_str(&answer.body_mut().read_to_string().expect("text")).expect("JSON");
        assert_eq!(
            page,
            serde_json::json!({"keys": ["000008", "000009"], "next": "000009"})
        );
        let lines = http()
            .get(&url)
            .header("accept", "application/x-ndjson")
            .call()
            .expect("an answer");
        let mut body = String::new();
        lines
            .into_body()
            .into_reader()
            .read_to_string(&mut body)
            .expect("to its end");
        assert_eq!(body.lines().count(), 3_000);
        assert!(body.ends_with("{\"key\":\"002999\"}\n"));
    }
}

#[test]
fn what_was_interrupted_goes_on() {
    let cluster = Cluster::start(3);
    let lines = cluster.dir().join("lines");
    let progress = cluster.dir().join("lines.progress");

    // A line that is none ends it, and everything before that is stored.
    let bad = many("b", 1_000) + "{\"bucket\":\"b\",\"kye\":\"k\"}\n" + &many("c", 10);
    fs::write(&lines, &bad).expect("a file");
    let ended = cluster.cli(&["import", text(&lines)]).expect(1);
    assert!(
        ended.stderr.contains("line 1001: unknown field `kye`")
            && ended.stderr.contains("--resume"),
        "{ended:?}"
    );
    assert!(progress.exists());
    let skipped = cluster
        .cli(&[
            "import",
            "--resume",
            "--skip-bad",
            text(&lines),
            "-o",
            "json",
        ])
        .expect(0);
    let counts = skipped.json();
    assert_eq!(
        (&counts["stored"], &counts["unchanged"], &counts["bad"]),
        (&10.into(), &0.into(), &1.into()),
        "{skipped:?}"
    );
    assert!(skipped.stderr.contains("left out line 1001"), "{skipped:?}");
    assert!(!progress.exists());

    // A value that the nodes refuse ends it as well. Where the file is mended, it goes on from there.
    let large = format!(
        "{{\"bucket\":\"b\",\"key\":\"z\",\"value\":\"{}\"}}\n",
        "v".repeat(9 << 20)
    );
    let rest: String = many("b", 1_500)
        .lines()
        .skip(1_000)
        .fold(String::new(), |all, line| all + line + "\n");
    fs::write(&lines, many("b", 1_000) + &large + &rest).expect("a file");
    let ended = cluster.cli(&["import", text(&lines)]).expect(1);
    assert!(
        ended.stderr.contains("line 1001, key 'z'") && ended.stderr.contains("--resume"),
        "{ended:?}"
    );
    fs::write(&lines, many("b", 1_500)).expect("a file");
    let rest = cluster
        .cli(&["import", "--resume", text(&lines), "-o", "json"])
        .expect(0)
        .json();
    // Some of what stands after the large value was under way when that was refused, and stayed.
    let count = |what: &str| rest[what].as_u64().expect("a number");
    assert_eq!(count("stored") + count("unchanged"), 500, "{rest}");
    assert!(count("unchanged") < 64, "{rest}");

    // An export that was cut off in mid-line.
    let out = cluster.dir().join("out");
    let _ = cluster
        .cli(&["export", "b", "c", "--file", text(&out)])
        .expect(0);
    let whole = fs::read(&out).expect("it is there");
    assert_eq!(canonical(&whole).len(), 1_510);
    for cut in [0, 10, whole.len() / 2, whole.len() - 100, whole.len()] {
        fs::write(&out, &whole[..cut]).expect("a file");
        let _ = cluster
            .cli(&["export", "b", "c", "--file", text(&out), "--resume"])
            .expect(0);
        assert!(
            fs::read(&out).expect("it is there") == whole,
            "cut at {cut}"
        );
    }
    let refused = cluster
        .cli(&["export", "b", "--file", text(&out), "--resume"])
        .expect(1);
    assert!(refused.stderr.contains("bucket 'c'"), "{refused:?}");
}
