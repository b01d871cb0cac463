//! Contexts of the `nats` CLI: one JSON file each, made with `nats context add`.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::connect::{Connect, Credentials, config};
use crate::error::Error;

/// A context, of which greenroom honours these parts.
#[derive(Deserialize)]
pub(super) struct Context {
    #[serde(skip)]
    file: PathBuf,
    #[serde(skip)]
    home: Option<String>,
    #[serde(default)]
    url: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    creds: String,
    #[serde(default)]
    nkey: String,
    #[serde(default)]
    cert: String,
    #[serde(default)]
    key: String,
    #[serde(default)]
    ca: String,
    #[serde(default)]
    inbox_prefix: String,
    #[serde(default)]
    jetstream_domain: String,
    #[serde(default)]
    jetstream_api_prefix: String,
    #[serde(default)]
    tls_first: bool,
    #[serde(default)]
    socks_proxy: String,
    #[serde(default)]
    nsc: String,
    #[serde(default)]
    user_jwt: String,
}

impl Context {
    /// The context that `NATS_CONTEXT` names (a name, or the path of a `.json` file), else the
    /// selected one, if there is one.
    pub(super) fn find(var: &impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let home = var("HOME");
        let folder = var("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| home.as_ref().map(|home| Path::new(home).join(".config")))
            .map(|config| config.join("nats"));
        let (name, source) = match (var("NATS_CONTEXT"), &folder) {
            (Some(name), _) => (name, "NATS_CONTEXT".to_owned()),
            (None, None) => return Ok(None),
            (None, Some(folder)) => {
                let selected = folder.join("context.txt");
                // Most machines have none; one that cannot be read is as good as none.
                let name = std::fs::read_to_string(&selected).unwrap_or_default().trim().to_owned();
                if name.is_empty() {
                    return Ok(None);
                }
                (name, selected.display().to_string())
            }
        };
        let file = if name.ends_with(".json") {
            PathBuf::from(&name)
        } else if name.contains(['/', '\\']) || name.contains("..") {
            return Err(config(format!("{source} names the context {name:?}, which is not a context's name")));
        } else {
            let folder = folder.ok_or_else(|| {
                config(format!("{source} names the context {name:?}, but neither XDG_CONFIG_HOME nor HOME is set"))
            })?;
            folder.join("context").join(format!("{name}.json"))
        };
        Self::read(&file, home)
            .map(Some)
            .map_err(|why| config(format!("{source} names the context {name:?}, but {}: {why}", file.display())))
    }

    /// Takes over what the context sets.
    pub(super) fn apply(self, connect: &mut Connect) -> Result<(), Error> {
        let shown = self.file.display();
        for (field, value) in [("socks_proxy", &self.socks_proxy), ("nsc", &self.nsc), ("user_jwt", &self.user_jwt)] {
            if !value.is_empty() {
                return Err(config(format!("{shown}: {field:?} is not supported; remove it or take another context")));
            }
        }
        if !self.url.is_empty() {
            connect.set_url(&self.url, &shown.to_string())?;
        }
        let path = |text: &str| {
            (!text.is_empty()).then(|| expand(text, &|name: &str| self.home.clone().filter(|_| name == "HOME")))
        };
        if !self.user.is_empty() {
            let (name, password) = (self.user.clone(), self.password.clone());
            connect.credentials = Credentials::User { name, password };
        } else if let Some(file) = path(&self.creds) {
            connect.credentials = Credentials::CredsFile(file);
        } else if let Some(file) = path(&self.nkey) {
            connect.credentials = Credentials::NkeyFile(file);
        } else if !self.token.is_empty() {
            connect.credentials = Credentials::Token(self.token.clone());
        }
        connect.tls.certificate = path(&self.cert);
        connect.tls.key = path(&self.key);
        connect.tls.authority = path(&self.ca);
        connect.tls.first = self.tls_first;
        if !self.inbox_prefix.is_empty() {
            connect.inbox_prefix = self.inbox_prefix;
        }
        if !self.jetstream_api_prefix.is_empty() {
            connect.api_prefix = self.jetstream_api_prefix.trim_end_matches('.').to_owned();
        } else if !self.jetstream_domain.is_empty() {
            connect.api_prefix = format!("$JS.{}.API", self.jetstream_domain);
        }
        Ok(())
    }

    fn read(file: &Path, home: Option<String>) -> Result<Self, String> {
        let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
        // serde_json's message may quote the offending text, which may be a secret: only where.
        let mut context: Self = serde_json::from_str(&text)
            .map_err(|error| format!("it is not a context (line {}, column {})", error.line(), error.column()))?;
        context.file = file.to_owned();
        context.home = home;
        Ok(context)
    }
}

/// A path with `~/` and `$HOME` written out, as the CLI does.
pub(super) fn expand(path: &str, var: &impl Fn(&str) -> Option<String>) -> PathBuf {
    for prefix in ["~/", "$HOME/", "${HOME}/"] {
        if let (Some(rest), Some(home)) = (path.strip_prefix(prefix), var("HOME")) {
            return Path::new(&home).join(rest);
        }
    }
    PathBuf::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// A folder of its own that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("greenroom-context-{test}-{}", std::process::id()));
            std::fs::create_dir_all(path.join("nats/context")).expect("a folder");
            Self(path)
        }

        fn write(&self, path: &str, text: &str) {
            std::fs::write(self.0.join("nats").join(path), text).expect("a file");
        }

        fn connect(&self, vars: &[(&str, &str)]) -> Result<Connect, Error> {
            Connect::from_env(|name| match name {
                "XDG_CONFIG_HOME" => Some(self.0.display().to_string()),
                "HOME" => Some("/home/x".to_owned()),
                _ => vars.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()),
            })
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn the_selected_context_counts_and_the_environment_wins_over_it() {
        let folder = Folder::new("selected");
        folder.write("context.txt", "prod\n");
        folder.write(
            "context/prod.json",
            r#"{"url": "nats://prod:4222", "creds": "~/a.creds", "ca": "/ca.pem", "inbox_prefix": "_INBOX.me", "jetstream_domain": "hub"}"#,
        );
        let connect = folder.connect(&[]).expect("settings");
        assert_eq!(connect.servers, ["nats://prod:4222"]);
        assert_eq!(connect.credentials, Credentials::CredsFile("/home/x/a.creds".into()));
        assert_eq!(connect.api_prefix, "$JS.hub.API");
        assert_eq!(connect.inbox_prefix, "_INBOX.me");

        let connect = folder.connect(&[("NATS_URL", "nats://here"), ("NATS_TOKEN", "t")]).expect("settings");
        assert_eq!(connect.servers, ["nats://here"]);
        assert_eq!(connect.credentials, Credentials::Token("t".into()));
        assert_eq!(connect.tls.authority, Some("/ca.pem".into()));
    }

    #[test]
    fn a_context_that_is_missing_or_broken_is_named_without_its_secrets() {
        let folder = Folder::new("broken");
        let refused = folder.connect(&[("NATS_CONTEXT", "none")]).expect_err("missing");
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert!(refused.message().contains("context/none.json"), "{refused}");

        folder.write("context/bad.json", r#"{"password": hunter2}"#);
        let refused = folder.connect(&[("NATS_CONTEXT", "bad")]).expect_err("broken");
        assert!(refused.message().contains("line 1") && !refused.message().contains("hunter2"), "{refused}");

        folder.write("context/proxy.json", r#"{"socks_proxy": "socks5://x"}"#);
        let refused = folder.connect(&[("NATS_CONTEXT", "proxy")]).expect_err("unsupported");
        assert!(refused.message().contains("socks_proxy"), "{refused}");
    }
}
