//! The methods of an `#[actor]` block that take events of other actors: `#[on]`.

use proc_macro2::{Span, TokenStream};
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, GenericArgument, Ident, ImplItemFn, Meta, PathArguments, ReturnType, Type};

use super::Kind;
use super::handler::{Output, is_context, is_unit, output, plain};
use crate::attr::{self, Arg, once};
use crate::check::{Problems, name_problem, show};

/// A method marked `#[on]`.
pub(super) struct Subscription {
    /// Where the mark is.
    pub(super) marked: Span,
    pub(super) name: Ident,
    /// `OrderEvent` of `Received<OrderEvent>`.
    pub(super) event: Type,
    /// A variant of `Beginning`.
    pub(super) from: Option<Ident>,
    /// The function that says whom an event is for.
    pub(super) key: Option<Type>,
    pub(super) is_async: bool,
    pub(super) resumes: bool,
    pub(super) takes_context: bool,
    pub(super) output: Output,
    /// `#[cfg(..)]`, which decide over the impl too.
    pub(super) cfgs: Vec<Attribute>,
}

/// `#[on]` on a method.
pub(super) struct Mark {
    pub(super) at: Span,
    from: Option<Ident>,
    key: Option<Type>,
    /// Where it says so.
    resumes: Option<Span>,
}

/// Takes `#[on]` off a method.
pub(super) fn take_mark(method: &mut ImplItemFn, problems: &mut Problems) -> Option<Mark> {
    let mut mark = None;
    method.attrs.retain(|attr| {
        let is_mark = attr.path().is_ident("on");
        if is_mark {
            if mark.is_some() {
                problems.push(syn::Error::new_spanned(attr, "a method takes the events of one actor: keep one #[on]"));
            }
            mark = Some(read(attr, problems));
        }
        !is_mark
    });
    mark
}

fn read(attr: &Attribute, problems: &mut Problems) -> Mark {
    let tokens = match &attr.meta {
        Meta::List(list) => list.tokens.clone(),
        _ => TokenStream::new(),
    };
    let mut mark = Mark { at: attr.path().span(), from: None, key: None, resumes: None };
    for arg in attr::args(tokens, problems) {
        match arg {
            arg if arg.is_word("resumes") => mark.resumes = Some(arg.span()),
            Arg::Pair(key, value) if key == "key" => once(&mut mark.key, value.ty(&key, problems), "`key`", problems),
            Arg::Pair(key, value) if key == "from" => {
                let from = value.ident(&key, problems).and_then(|from| beginning(&from, problems));
                once(&mut mark.from, from, "`from`", problems);
            }
            arg => arg.unknown("on", "`key = function`, `from = first`, `from = now` and `resumes`", problems),
        }
    }
    mark
}

fn beginning(from: &Ident, problems: &mut Problems) -> Option<Ident> {
    let variant = match from.to_string().as_str() {
        "first" => "First",
        "now" => "Now",
        other => {
            let text = format!("a subscription does not begin with `{other}`: write `from = first` or `from = now`");
            problems.at(from.span(), text);
            return None;
        }
    };
    Some(Ident::new(variant, from.span()))
}

pub(super) fn subscription(
    kind: Kind,
    mark: Mark,
    method: &ImplItemFn,
    problems: &mut Problems,
) -> Option<Subscription> {
    let sig = &method.sig;
    let shape = format!(
        "`fn {}(&mut self, happened: Received<OrderEvent>, ctx: &mut Context<'_, Self>)`, ctx if needed",
        sig.ident
    );
    let mut sound = plain(sig, problems);
    let mut wrong = |span: Span, text: String| {
        problems.at(span, text);
        sound = false;
    };
    if kind == Kind::Service {
        let text = "a service has no key by which an event would find it: make it an #[actor], or read the journal \
                    in a task of the node";
        wrong(mark.at, text.to_owned());
    }
    if let Some(problem) = name_problem(&sig.ident.to_string()) {
        wrong(sig.ident.span(), format!("the subscription is called as its method, and {problem}"));
    }
    let receiver = sig.receiver().map(|receiver| &*receiver.ty);
    if !matches!(receiver, Some(Type::Reference(reference)) if reference.mutability.is_some()) {
        wrong(sig.ident.span(), format!("an #[on] is a turn of the actor: write {shape}"));
    }
    if let ReturnType::Type(_, ty) = &sig.output
        && !is_unit(ty)
    {
        wrong(
            ty.span(),
            "nobody waits for what an #[on] returns: return nothing, and panic if it must come again".to_owned(),
        );
    }
    if let (Some(at), None) = (mark.resumes, &sig.asyncness) {
        wrong(
            at,
            "a plain `fn` cannot be cut between two commits: make it an `async fn`, or remove `resumes`".to_owned(),
        );
    }
    let mut types = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Receiver(_) => None,
        FnArg::Typed(typed) => Some(&*typed.ty),
    });
    let (happened, context, extra) = (types.next(), types.next(), types.next());
    let event = happened.and_then(received);
    if event.is_none() {
        let span = happened.map_or(sig.ident.span(), Spanned::span);
        wrong(span, format!("an #[on] takes what has happened, and to whom: write {shape}"));
    } else if let Some(extra) = extra.or(context.filter(|ty| !is_context(ty))) {
        wrong(extra.span(), format!("an #[on] takes an event and the context, no more: write {shape}"));
    }
    let event = event.filter(|_| sound)?.clone();
    Some(Subscription {
        marked: mark.at,
        name: sig.ident.clone(),
        event,
        from: mark.from,
        key: mark.key,
        is_async: sig.asyncness.is_some(),
        resumes: mark.resumes.is_some(),
        takes_context: context.is_some(),
        output: output(sig),
        cfgs: method.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect(),
    })
}

/// `OrderEvent` of `Received<OrderEvent>`.
fn received(ty: &Type) -> Option<&Type> {
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last().filter(|last| last.ident == "Received")?;
    let PathArguments::AngleBracketed(of) = &last.arguments else { return None };
    match (of.args.first(), of.args.len()) {
        (Some(GenericArgument::Type(event)), 1) => Some(event),
        _ => None,
    }
}

/// The events of one actor go to one method; of several the first counts.
pub(super) fn one_method_each(subscriptions: &mut Vec<Subscription>, problems: &mut Problems) {
    let mut at = 0;
    while let Some(second) = subscriptions.get(at) {
        let same =
            |first: &&Subscription| first.event == second.event && first.cfgs.is_empty() && second.cfgs.is_empty();
        let Some(first) = subscriptions[..at].iter().find(same) else {
            at += 1;
            continue;
        };
        let (event, first, again) = (show(&second.event), &first.name, &second.name);
        let text = format!("`{event}` goes to `{first}` and to `{again}`: an actor takes the events of another once");
        problems.push(syn::Error::new_spanned(&second.event, text));
        subscriptions.remove(at);
    }
}
