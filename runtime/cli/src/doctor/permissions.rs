//! What the user may do: all that a node needs, and not what only the broker may say.
//!
//! Every message goes to a subject that nobody listens to, or says nothing to whoever does, and no stream keeps it.

use greenroom::key::Key;
use greenroom::subject::{Filter, Subject};
use greenroom::transport::Transport;
use greenroom::{Error, ErrorKind};

use super::Patient;
use super::report::{Finding, Report};

/// An actor type that no app has.
const ACTOR: &str = "greenroom_doctor";
/// No verb begins with `=`, and JetStream cannot read it either.
const BODY: &str = "=doctor";
/// What nodes read as a notice about no node of theirs.
const NO_NOTICE: &str = r#"{"server":{"id":"-"},"client":{"id":0,"name":"greenroom doctor"},"reason":"a trial"}"#;

pub(super) async fn check(patient: &Patient, report: &mut Report) {
    report.add(match needs(patient).await {
        Ok(refused) if refused.is_empty() => Finding::ok("permissions", "this user may do all that a node does"),
        Ok(refused) => {
            let app = patient.subjects.app();
            Finding::fail(
                "permissions",
                format!("this user may not {}", refused.join(", nor ")),
                "a node that connects as this user does not start, or cannot call, answer or store",
                format!(
                    "allow the nodes' user to publish and subscribe to {app}.> , $KV.{app}-own.> , $JS.API.> , $JS.ACK.> , \
                     _INBOX.> and $SRV.> (or run the doctor as the user that your nodes are)"
                ),
            )
        }
        Err(error) => unknown("permissions", &error),
    });
    report.add(match may_forge(patient).await {
        Ok(false) => Finding::ok("forgery", "this user cannot forge the broker's word on closed connections"),
        Ok(true) => {
            let subject = patient.subjects.disconnects();
            Finding::warn(
                "forgery",
                format!("this user may publish to {subject}"),
                "nodes act on what is said there: a forged notice can cost a node that lives its id, and what it has in \
                 memory",
                format!("permissions: {{ publish: {{ deny: \"{}.node.sys.>\" }} }}, for every user", patient.subjects.app()),
            )
        }
        Err(error) => unknown("forgery", &error),
    });
}

fn unknown(check: &'static str, error: &Error) -> Finding {
    Finding::fail(
        check,
        format!("they could not be tried: {}", error.message()),
        "what this user may do is not known",
        "run the doctor again when the broker answers",
    )
}

/// What is refused of what a node does, each as "publish to …" or "subscribe to …".
async fn needs(patient: &Patient) -> Result<Vec<String>, Error> {
    let mut refused = Vec::new();
    for subject in published(patient)? {
        if !patient.transport.may_publish(&subject, BODY).await? {
            refused.push(format!("publish to {subject}"));
        }
    }
    for filter in subscribed(patient)? {
        match patient.transport.subscribe(&filter, None, 16).await {
            Ok(_) => {}
            // The connection stands, or the round trips before would have failed.
            Err(error) if error.kind() == ErrorKind::Unavailable && error.message().contains("permissions") => {
                refused.push(format!("subscribe to {filter}"));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(refused)
}

fn published(patient: &Patient) -> Result<Vec<Subject>, Error> {
    let (subjects, id) = (&patient.subjects, patient.id.as_str());
    let (app, bucket, key) = (subjects.app(), subjects.ownership_bucket(), Key::new(id)?);
    let stream = subjects.journal_stream(ACTOR);
    Ok(vec![
        subjects.call(ACTOR, &key, BODY),
        Subject::parse(&format!("{app}.@.0.{ACTOR}.{id}.{BODY}"))?,
        subjects.node(id, BODY),
        subjects.live(ACTOR, "tried", &key),
        subjects.journal(ACTOR, &key),
        Subject::parse(&format!("$KV.{bucket}.member.{id}"))?,
        // What follows a name that is there must not be carried out: JetStream cannot read the body.
        patient.transport.jetstream_subject(&format!("STREAM.INFO.KV_{bucket}"))?,
        patient.transport.jetstream_subject(&format!("STREAM.MSG.GET.KV_{bucket}"))?,
        patient.transport.jetstream_subject(&format!("STREAM.CREATE.{stream}"))?,
        patient.transport.jetstream_subject(&format!("CONSUMER.CREATE.{stream}"))?,
        patient.transport.jetstream_subject(&format!("CONSUMER.MSG.NEXT.{stream}.{id}"))?,
        Subject::parse(&format!("$JS.ACK.{stream}.{id}"))?,
        Subject::parse(&format!("_INBOX.{id}"))?,
    ])
}

fn subscribed(patient: &Patient) -> Result<Vec<Filter>, Error> {
    let (subjects, id) = (&patient.subjects, patient.id.as_str());
    Ok(vec![
        subjects.node_all(id),
        subjects.owner(ACTOR, 0),
        subjects.calls(ACTOR),
        subjects.lives(ACTOR, None, None),
        subjects.any_node(),
        Subject::parse("$SRV.PING")?.to_filter(),
        Subject::parse(&format!("_INBOX.{id}"))?.to_filter(),
    ])
}

async fn may_forge(patient: &Patient) -> Result<bool, Error> {
    let subject = Subject::parse(patient.subjects.disconnects().as_str())?;
    patient.transport.may_publish(&subject, NO_NOTICE).await
}
