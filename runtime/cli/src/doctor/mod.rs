//! `greenroom doctor`: checks a broker, and an app on it.
//!
//! Every check gives one finding or several. None of them stores anything: messages go to subjects that only the doctor
//! listens to, and tell streams not to keep them.

mod app;
mod clock;
mod mapping;
mod monitor;
mod notices;
mod permissions;
mod report;
mod server;

use std::time::Duration;

use anyhow::Context as _;
use greenroom::subject::{Name, Subjects};
use greenroom::transport::{Connect, NatsTransport, ServerFacts};
use serde_json::Value;

use self::app::App;
use self::report::{Finding, Progress, Report};

const HELP: &str = "\
Examples:
  greenroom doctor
  greenroom doctor --nats nats://broker:4222 --app shop --strict
  greenroom doctor --actor order --actor user        before anything has run
  greenroom doctor --json | jq '.checks[] | select(.verdict != \"ok\")'

Without --nats the broker is found as the nats CLI finds it: NATS_URL, NATS_CREDS, NATS_NKEY,
NATS_USER, NATS_PASSWORD, NATS_TOKEN, NATS_CERT, NATS_KEY, NATS_CA, NATS_CONTEXT, or the context
that was selected. Run it as the user that your nodes are: permissions are looked at for that user.

Each line says ok, warn or fail. fail: nodes do not work, or lose what was acknowledged. warn:
it works, at a cost that the line names. Nothing is stored and nothing is changed.

It exits with 0 if nothing failed (with --strict: and nothing warned), with 1 otherwise, and
with 2 if it cannot be run as it was typed.";

/// Checks a broker, and an app on it: what is wrong, what it costs, how to mend it.
#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(crate) struct Args {
    /// Where the broker is, as nats://host:port; several with commas between. Wins over NATS_URL.
    #[arg(long, value_name = "URL")]
    nats: Option<String>,
    /// The app: what the subjects of its actors begin with.
    #[arg(long, default_value = "shop", value_parser = name)]
    app: Name,
    /// An actor type whose mapping is looked at although no node hosts it yet; may be repeated.
    #[arg(long, value_name = "ACTOR", value_parser = name)]
    actor: Vec<Name>,
    /// The server's monitoring port. By default http://127.0.0.1:8222 is tried, and believed only
    /// if it is the same server.
    #[arg(long, value_name = "URL", value_parser = monitor::Address::parse)]
    monitor: Option<monitor::Address>,
    /// Prints JSON: {app, verdict, failed, warned, checks: [{check, verdict, found, costs, mend}]}.
    #[arg(long)]
    pub(crate) json: bool,
    /// A warning counts as a failure.
    #[arg(long)]
    pub(crate) strict: bool,
}

fn name(text: &str) -> Result<Name, String> {
    Name::new(text).map_err(|error| error.message().to_owned())
}

/// What every check looks at.
struct Patient {
    /// How to connect once more.
    connect: Connect,
    transport: NatsTransport,
    server: ServerFacts,
    subjects: Subjects,
    /// A token that nobody else uses.
    id: String,
}

impl Patient {
    /// What JetStream answers to a request, errors of its own included.
    async fn jetstream(&self, request: &str, body: &Value) -> Result<Value, greenroom::Error> {
        let subject = self.transport.jetstream_subject(request)?;
        let answer = self.transport.request(&subject, body.to_string()).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            let why = format!("the answer to {subject} is no JSON: {error}");
            greenroom::Error::new(greenroom::ErrorKind::Unavailable, why)
        })
    }
}

/// Looks at everything.
///
/// # Errors
/// If the settings cannot be used: nothing was looked at then.
pub(crate) async fn run(args: &Args) -> anyhow::Result<Report> {
    let mut connect = Connect::from_env(|name| std::env::var(name).ok())?;
    if let Some(url) = &args.nats {
        connect = connect.url(url).context("--nats")?;
    }
    let mut report = Report::new(args.app.as_str());
    let progress = Progress::start();
    let id = format!("doctor-{}", token());
    progress.step("connecting to the broker");
    let connect = connect.name(&id);
    let transport = match NatsTransport::connect(connect.clone()).await {
        Ok(transport) => transport,
        Err(error) => {
            report.add(Finding::unreachable(error.message()));
            return Ok(report);
        }
    };
    let patient = match transport.server() {
        Ok(server) => Patient { connect, transport, server, subjects: Subjects::new(args.app.clone()), id },
        Err(error) => {
            report.add(Finding::unreachable(error.message()));
            return Ok(report);
        }
    };
    examine(&patient, args, &mut report, &progress).await;
    // Nothing is left to send; the process ends anyway if this takes longer.
    let closing = greenroom::transport::Transport::close(&patient.transport);
    tokio::time::timeout(Duration::from_secs(1), closing).await.ok();
    Ok(report)
}

async fn examine(patient: &Patient, args: &Args, report: &mut Report, progress: &Progress) {
    progress.step("asking the monitoring port");
    let seen = monitor::look(args.monitor.as_ref(), &patient.server.id).await;
    report.add(server::version(patient, &seen));
    progress.step("asking JetStream");
    let jetstream = server::jetstream(patient).await;
    let has_jetstream = jetstream.is_ok();
    report.add(jetstream.unwrap_or_else(|finding| finding));
    report.add(server::sync_interval(&seen));
    report.add(server::payload(patient));
    progress.step("trying what the user may do");
    permissions::check(patient, report).await;
    progress.step("waiting for the broker's word on a closed connection");
    report.add(notices::check(patient).await);
    if !has_jetstream {
        return;
    }
    progress.step("reading the app's streams");
    match App::read(patient).await {
        Ok(app) => {
            report.extend(app.findings());
            report.add(clock::check(&app, &seen));
            progress.step("trying the mapping");
            report.extend(mapping::check(patient, &app, &args.actor).await);
        }
        Err(error) => report.add(app::unread(error.message())),
    }
}

/// A token that differs at each start: from the clock and the process, through a hasher with a random seed.
fn token() -> String {
    use std::hash::{BuildHasher, RandomState};
    format!("{:016x}", RandomState::new().hash_one(std::process::id()))
}
