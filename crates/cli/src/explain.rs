//! The account of a request, for `--explain`.

use quorate_client::{Account, Explained};
use serde_json::{Value as Json, json};

use crate::failure::Failure;
use crate::output::{self, Form};

/// What became of a request, its account told: as a table on standard error right away, or for the JSON document of the
/// result. A failure's account is a document of its own, so that it is not lost.
///
/// # Errors
/// The request's own failure.
pub(crate) fn told<T>(
    explained: Explained<T>,
    form: Form,
    bucket: &str,
    key: &str,
) -> Result<(T, Option<Account>), Failure> {
    let Explained { result, account } = explained;
    if form == Form::Table
        && let Some(account) = &account
    {
        output::remark(&text(account));
    }
    match (result, account) {
        (Ok(result), account) => Ok((result, account)),
        (Err(error), Some(account)) if form == Form::Json => {
            output::json(&json!({
                "bucket": bucket,
                "key": key,
                "error": error.to_string(),
                "explain": account,
            }))?;
            Err(Failure::new(error))
        }
        (Err(error), _) => Err(Failure::new(error)),
    }
}

/// A result with its account, where there is one, as the member `explain`.
pub(crate) fn with(mut document: Json, account: Option<&Account>) -> Json {
    if let (Some(members), Some(account)) = (document.as_object_mut(), account) {
        members.insert("explain".to_owned(), json!(account));
    }
    document
}

/// An account for people.
fn text(account: &Account) -> String {
    let mut lines = vec![format!(
        "coordinated by {} in {}, partition {}, layout version {}; needed: {}",
        account.coordinator,
        after(account.elapsed_us),
        account.partition,
        account.layout_version,
        match account.needed.is_empty() {
            true => "nothing".to_owned(),
            false => account.needed.join(", "),
        }
    )];
    let mut table = output::table(&[
        "NODE", "REGION", "STATE", "AFTER", "WHAT", "DOTS", "REMOVED",
    ]);
    for replica in &account.replicas {
        let name = match &replica.stands_in_for {
            None => replica.node.clone(),
            Some(primary) => format!("{} for {primary}", replica.node),
        };
        let mut named = [
            name.as_str(),
            replica.region.as_str(),
            if replica.up { "up" } else { "down" },
        ];
        let mut row = |at: String, what: &str, dots: String, evidence: u32| {
            let removed = match evidence {
                0 => "-".to_owned(),
                1 => "1 run".to_owned(),
                runs => format!("{runs} runs"),
            };
            let [node, region, state] = named;
            table.add_row([node, region, state, &at, what, &dots, &removed]);
            // Once is enough.
            named = [""; 3];
        };
        for step in &replica.steps {
            row(
                after(step.at_us),
                &step.what,
                dots(&step.dots),
                step.evidence,
            );
        }
        match replica.steps.last().map(|s| s.what.as_str()) {
            None => row("-".to_owned(), "not asked", "-".to_owned(), 0),
            Some(what) if what.starts_with("asked") || what.starts_with("sent the write") => {
                row("-".to_owned(), "no answer by then", "-".to_owned(), 0);
            }
            Some(_) => {}
        }
    }
    lines.push(table.trim_fmt());
    for repair in &account.repaired {
        lines.push(format!(
            "{} was behind and was sent {}, and {} runs of removals",
            repair.node,
            dots(&repair.dots),
            repair.evidence
        ));
    }
    lines.extend(account.siblings.iter().cloned());
    lines.join("\n")
}

fn dots(dots: &[String]) -> String {
    match dots.is_empty() {
        true => "-".to_owned(),
        false => dots.join(" "),
    }
}

/// `0.250 ms`
fn after(micros: u64) -> String {
    format!("{}.{:03} ms", micros / 1_000, micros % 1_000)
}

#[cfg(test)]
mod tests {
    use quorate_protocol::{RepairAccount, ReplicaAccount, StepAccount};

    use super::*;

    #[test]
    fn an_account_reads_as_a_table() {
        let step = |at_us: u64, what: &str, dots: &[&str]| StepAccount {
            at_us,
            what: what.to_owned(),
            dots: dots.iter().map(|d| (*d).to_owned()).collect(),
            evidence: 2,
        };
        let replica = |node: &str, up: bool, steps: Vec<StepAccount>| ReplicaAccount {
            node: node.to_owned(),
            region: "eu".to_owned(),
            stands_in_for: None,
            up,
            steps,
        };
        let account = Account {
            coordinator: "node-1".to_owned(),
            partition: 17,
            layout_version: 3,
            needed: vec!["r=2 of 3".to_owned(), "w=2 of 3".to_owned()],
            replicas: vec![
                replica(
                    "node-1",
                    true,
                    vec![
                        step(0, "asked for the record", &[]),
                        step(1_250, "record", &["a:1", "b:2"]),
                    ],
                ),
                replica("node-2", false, vec![step(30, "asked for a digest", &[])]),
                replica("node-3", true, Vec::new()),
                ReplicaAccount {
                    stands_in_for: Some("node-2".to_owned()),
                    ..replica(
                        "node-4",
                        true,
                        vec![step(40, "asked for what it keeps", &[])],
                    )
                },
            ],
            repaired: vec![RepairAccount {
                node: "node-2".to_owned(),
                dots: vec!["a:1".to_owned()],
                evidence: 1,
            }],
            siblings: vec!["a:1 stands: so it is".to_owned()],
            elapsed_us: 1_300,
            ..Account::default()
        };
        let text = text(&account);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "coordinated by node-1 in 1.300 ms, partition 17, layout version 3; needed: r=2 of 3, w=2 of 3"
        );
        assert!(lines[1].starts_with("NODE"), "{text}");
        assert!(
            lines[3].contains("1.250 ms") && lines[3].contains("a:1 b:2"),
            "{text}"
        );
        assert!(
            lines[4].starts_with("node-2") && lines[4].contains("down"),
            "{text}"
        );
        assert!(lines[5].contains("no answer by then"), "{text}");
        assert!(lines[6].contains("not asked"), "{text}");
        assert!(lines[7].starts_with("node-4 for node-2"), "{text}");
        assert!(lines[8].contains("no answer by then"), "{text}");
        assert_eq!(
            lines[9],
            "node-2 was behind and was sent a:1, and 1 runs of removals"
        );
        assert_eq!(lines[10], "a:1 stands: so it is");
    }
}
