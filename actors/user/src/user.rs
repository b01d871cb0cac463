use greenroom::prelude::*;
use serde::{Deserialize, Serialize};
use shop_contract::user::{Get, NoSuchUser, Register, RegisterRefused, User, UserEvent, UserView};

/// The longest name, in bytes.
const NAME_BYTES_MAX: u32 = 200;

/// The longest address that mail can have, in bytes (RFC 5321).
const EMAIL_BYTES_MAX: usize = 254;

/// One user.
pub struct UserActor {
    profile: Durable<Profile>,
}

/// What is known of a user; nothing until they register.
#[derive(Default, Serialize, Deserialize)]
struct Profile {
    registered: Option<Registered>,
}

#[derive(Serialize, Deserialize)]
struct Registered {
    name: String,
    email: String,
}

impl State for Profile {
    type Event = UserEvent;

    fn apply(&mut self, event: &UserEvent) {
        match event {
            UserEvent::Registered { name, email } => {
                self.registered = Some(Registered { name: name.clone(), email: email.clone() });
            }
        }
    }
}

#[actor(User, state = profile, durable)]
impl UserActor {
    async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error> {
        Ok(Self { profile: ctx.durable().await? })
    }

    #[ask]
    fn register(&mut self, msg: Register, ctx: &mut Context<'_, Self>) -> Result<UserView, RegisterRefused> {
        let id = ctx.key().as_str().to_owned();
        if let Some(known) = &self.profile.registered {
            // The caller may not have had the first answer, so the same data is no conflict.
            if known.name != msg.name || known.email != msg.email {
                return Err(RegisterRefused::AlreadyRegistered { id });
            }
            return Ok(UserView { id, name: msg.name, email: msg.email });
        }
        if msg.name.trim().is_empty() || msg.name.len() > NAME_BYTES_MAX as usize {
            return Err(RegisterRefused::BadName { max: NAME_BYTES_MAX });
        }
        if !is_email(&msg.email) {
            return Err(RegisterRefused::BadEmail { email: shown(&msg.email) });
        }
        self.profile.emit(UserEvent::Registered { name: msg.name.clone(), email: msg.email.clone() });
        Ok(UserView { id, name: msg.name, email: msg.email })
    }

    #[read]
    fn get(&self, _: Get, ctx: &mut Context<'_, Self>) -> Result<UserView, NoSuchUser> {
        let id = ctx.key().as_str().to_owned();
        match &self.profile.registered {
            Some(known) => Ok(UserView { id, name: known.name.clone(), email: known.email.clone() }),
            None => Err(NoSuchUser { id }),
        }
    }
}

/// Whether it has the form of an address. Whether mail arrives there only mail can tell.
fn is_email(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else {
        return false;
    };
    text.len() <= EMAIL_BYTES_MAX
        && !local.is_empty()
        && !text.chars().any(|c| c.is_whitespace() || c.is_control())
        && !domain.contains('@')
        && domain.contains('.')
        && domain.split('.').all(|label| !label.is_empty())
}

/// As much of a refused address as belongs into an error.
fn shown(email: &str) -> String {
    email.chars().take(64).collect()
}
