//! What the streams say: the audit as a process, and the events of one actor in their order.

use greenroom::Key;
use greenroom::subject::{Name, Subjects};
use greenroom::transport::{Connect, NatsTransport, StreamConfig, Transport};
use serde_json::Value;
use tokio::process::Command;

use super::{Server, program};

/// What `shop-demo audit` found.
#[derive(Debug)]
pub(crate) struct Audit {
    success: bool,
    figures: Value,
    stderr: String,
}

impl Audit {
    /// Reads the streams on this server. Nobody should order meanwhile.
    pub(crate) async fn of(server: &Server) -> Self {
        let mut command = Command::new(program("shop-demo").await);
        let command = command.args(["audit", "--json", "--nats", server.url()]).kill_on_drop(true);
        let output = command.output().await.expect("shop-demo can be run");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        let figures = serde_json::from_slice(&output.stdout);
        let figures = figures.unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { success: output.status.success(), figures, stderr }
    }

    /// The figures, if all adds up.
    #[track_caller]
    pub(crate) fn adds_up(self) -> Value {
        let Self { success, figures, stderr } = self;
        assert!(success && figures["adds_up"] == Value::Bool(true), "{figures:#}\n{stderr}");
        figures
    }
}

/// The names of an actor's events, oldest first, as its journal has them.
pub(crate) async fn story(server: &Server, actor: &str, key: &str) -> Vec<String> {
    let settings = Connect::try_from(server.url()).expect("an address").name("story");
    let transport = NatsTransport::connect(settings).await.expect("a connection");
    let subjects = Subjects::new(Name::new("shop").expect("a name"));
    let subject = subjects.journal(actor, &Key::new(key).expect("a key"));
    let config = StreamConfig::new([subjects.journals(actor)]);
    let stream = transport.stream(&subjects.journal_stream(actor), config).await.expect("the stream");
    let last = stream.last(&subject).await.expect("an answer").expect("it has a journal").sequence;
    let records = stream.read(&subject, 1, last).await.expect("all of them");
    let names = records.iter().filter_map(|record| record.headers.get("Greenroom-Events"));
    names.flat_map(|names| names.split(',')).map(str::to_owned).collect()
}
