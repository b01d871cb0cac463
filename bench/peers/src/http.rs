//! HTTP/1.1: axum, and the client of hyper-util with its pool of connections that stay open.

use std::net::SocketAddr;

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use bytes::Bytes;
use greenroom_bench_load::{Caller, Client as _, announce};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;

const PATH: &str = "/echo";
/// Connections that the pool keeps; more than any case has calls in flight.
const IDLE: usize = 1024;

/// Answers until it is killed.
pub(crate) async fn serve(at: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(at).await.with_context(|| format!("cannot listen on {at}"))?;
    // Without it a reply may wait for an acknowledgement. A socket that refuses is merely slower.
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let app = Router::new().route(PATH, post(async |body: Bytes| body));
    announce(&at.to_string())?;
    axum::serve(listener, app).await?;
    Ok(())
}

/// A client with its connections.
pub(crate) struct Pool {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
}

impl Pool {
    pub(crate) async fn connect(at: SocketAddr) -> anyhow::Result<Self> {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(IDLE).build(connector);
        let pool = Self { client, uri: format!("http://{at}{PATH}").parse()? };
        pool.caller(0, 1).ask().await?;
        Ok(pool)
    }
}

impl greenroom_bench_load::Client for Pool {
    type Caller = Poster;

    fn caller(&self, _: usize, payload: usize) -> Poster {
        Poster { client: self.client.clone(), uri: self.uri.clone(), body: Bytes::from(vec![b'x'; payload]) }
    }
}

/// One task's handle to the pool.
pub(crate) struct Poster {
    client: Client<HttpConnector, Full<Bytes>>,
    uri: Uri,
    body: Bytes,
}

impl Caller for Poster {
    async fn ask(&mut self) -> anyhow::Result<usize> {
        let request = Request::post(self.uri.clone()).body(Full::new(self.body.clone()))?;
        let reply = self.client.request(request).await?;
        ensure!(reply.status().is_success(), "the server said {}", reply.status());
        Ok(reply.into_body().collect().await?.to_bytes().len())
    }
}
