//! The methods of an `#[actor]` block: which of them are handlers, and whether they can be.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::{Attribute, FnArg, GenericParam, Ident, ImplItem, ImplItemFn, ItemImpl, Meta, ReturnType, Signature, Type};

use super::Kind;
use super::on::{self, Subscription};
use crate::check::{Mode, Problems, last_segment, show};

/// What the runtime calls in an impl block.
pub(super) struct Methods {
    pub(super) activate: Option<Activate>,
    pub(super) handlers: Vec<Handler>,
    pub(super) subscriptions: Vec<Subscription>,
}

/// `fn activate`, which brings the actor into memory.
pub(super) struct Activate {
    pub(super) name: Ident,
    pub(super) is_async: bool,
    pub(super) takes_context: bool,
    pub(super) output: Output,
}

/// A method marked `#[ask]`, `#[read]` or `#[tell]`.
pub(super) struct Handler {
    pub(super) mode: Mode,
    /// Where the mark is.
    pub(super) marked: Span,
    pub(super) name: Ident,
    pub(super) message: Type,
    pub(super) is_async: bool,
    pub(super) takes_context: bool,
    /// What its mark says of it.
    pub(super) said: Option<Said>,
    pub(super) output: Output,
    /// `#[cfg(..)]`, which decide over the impls too.
    pub(super) cfgs: Vec<Attribute>,
}

/// What a mark can say: `#[ask(resumes)]`, `#[read(stale)]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// It goes on with a turn that was cut.
    Resumes,
    /// It is content with what the actor was a moment ago.
    Stale,
    /// It wants proof that nobody else has written.
    Strict,
}

/// What a method returns.
pub(super) struct Output {
    pub(super) kind: OutputKind,
    /// Where it says so.
    pub(super) span: Span,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OutputKind {
    /// A `Result`, by its name.
    Result,
    /// Anything else, which is wrapped in Ok.
    Reply,
}

/// Reads the methods, and takes the marks off them.
pub(super) fn methods(kind: Kind, item: &mut ItemImpl, problems: &mut Problems) -> Methods {
    let mut methods = Methods { activate: None, handlers: Vec::new(), subscriptions: Vec::new() };
    for item in &mut item.items {
        let ImplItem::Fn(method) = item else { continue };
        let marks = take_marks(method, problems);
        if let Some(mark) = on::take_mark(method, problems) {
            if marks.is_empty() {
                methods.subscriptions.extend(on::subscription(kind, mark, method, problems));
            } else {
                problems.at(mark.at, "a method is for one thing: an #[on] is told of events, and nobody calls it");
            }
        } else if let Some(mark) = marks.first() {
            methods.handlers.extend(handler(mark, method, problems));
        } else if method.sig.ident == "activate" {
            methods.activate = activate(&method.sig, problems);
        }
    }
    one_method_each(&mut methods.handlers, problems);
    on::one_method_each(&mut methods.subscriptions, problems);
    methods
}

/// `#[ask]`, `#[read]` or `#[tell]` on a method.
struct Mark {
    mode: Mode,
    at: Span,
    /// What it says, and where.
    said: Option<(Said, Span)>,
}

/// Takes `#[ask]`, `#[read]` and `#[tell]` off a method; of several the first counts.
fn take_marks(method: &mut ImplItemFn, problems: &mut Problems) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    let name = &method.sig.ident;
    method.attrs.retain(|attr| {
        let Some(mode) = attr.path().get_ident().and_then(Mode::of) else {
            return true;
        };
        let said = said(mode, attr, problems);
        if let Some(first) = marks.first() {
            let text = format!("`{name}` is marked #[{}] already: a handler has one mode", first.mode.word());
            problems.push(syn::Error::new_spanned(attr, text));
        }
        marks.push(Mark { mode, at: attr.path().span(), said });
        false
    });
    marks
}

/// What a mark says, and where.
fn said(mode: Mode, attr: &Attribute, problems: &mut Problems) -> Option<(Said, Span)> {
    let word = match &attr.meta {
        Meta::Path(_) => return None,
        Meta::List(list) => list.parse_args::<Ident>().ok(),
        Meta::NameValue(_) => None,
    };
    let said = word.as_ref().and_then(|word| match (mode, word.to_string().as_str()) {
        (Mode::Ask | Mode::Tell, "resumes") => Some(Said::Resumes),
        (Mode::Read, "stale") => Some(Said::Stale),
        (Mode::Read, "strict") => Some(Said::Strict),
        _ => None,
    });
    if let (Some(said), Some(word)) = (said, word) {
        return Some((said, word.span()));
    }
    let takes = if mode == Mode::Read { "`stale`, `strict`" } else { "`resumes`" };
    problems.push(syn::Error::new_spanned(&attr.meta, format!("#[{}] takes {takes} or nothing", mode.word())));
    None
}

fn handler(mark: &Mark, method: &ImplItemFn, problems: &mut Problems) -> Option<Handler> {
    let (mode, sig) = (mark.mode, &method.sig);
    // All are asked, so that all mistakes of a method show at once.
    let receiver = receiver(mode, sig, problems);
    let plain = plain(sig, problems);
    let (message, takes_context) = arguments(mode, sig, problems)?;
    let output = returns(mode, sig, problems)?;
    if let (Some((Said::Resumes, at)), None) = (mark.said, &sig.asyncness) {
        problems.at(at, "a plain `fn` cannot be cut between two commits: make it an `async fn`, or remove `resumes`");
    }
    (receiver && plain).then(|| Handler {
        mode,
        marked: mark.at,
        name: sig.ident.clone(),
        message,
        is_async: sig.asyncness.is_some(),
        takes_context,
        said: mark.said.map(|(said, _)| said),
        output,
        cfgs: method.attrs.iter().filter(|attr| attr.path().is_ident("cfg")).cloned().collect(),
    })
}

/// `&mut self` for turns, `&self` for looks.
fn receiver(mode: Mode, sig: &Signature, problems: &mut Problems) -> bool {
    let (one, wanted) = match mode {
        Mode::Ask => ("an #[ask]", "&mut self"),
        Mode::Read => ("a #[read]", "&self"),
        Mode::Tell => ("a #[tell]", "&mut self"),
    };
    let Some(receiver) = sig.receiver() else {
        problems.at(sig.ident.span(), format!("{one} is a method of the actor: take `{wanted}` first"));
        return false;
    };
    let text = match &*receiver.ty {
        Type::Reference(reference) => match (mode, reference.mutability.is_some()) {
            (Mode::Read, false) | (Mode::Ask | Mode::Tell, true) => return true,
            (Mode::Read, true) => {
                "a #[read] only looks at the actor: take `&self`, or mark it #[ask] (or #[tell])".to_owned()
            }
            (_, false) => format!("{one} changes the actor: take `&mut self`, or mark it #[read]"),
        },
        _ => format!("{one} cannot take the actor away from the runtime: take `{wanted}`"),
    };
    problems.push(syn::Error::new_spanned(receiver, text));
    false
}

/// No generic parameters, nothing unsafe.
pub(super) fn plain(sig: &Signature, problems: &mut Problems) -> bool {
    let generic = sig.generics.params.iter().find(|param| !matches!(param, GenericParam::Lifetime(_)));
    if let Some(generic) = generic {
        let text = "a handler is for one message type of the contract: it takes no generic parameters";
        problems.push(syn::Error::new_spanned(generic, text));
    }
    if let Some(token) = &sig.unsafety {
        problems.at(token.span(), "the runtime calls handlers, so they are safe: remove `unsafe`");
    }
    generic.is_none() && sig.unsafety.is_none()
}

/// The message, and whether the context comes after it.
fn arguments(mode: Mode, sig: &Signature, problems: &mut Problems) -> Option<(Type, bool)> {
    let mut types = sig.inputs.iter().filter_map(|input| match input {
        FnArg::Receiver(_) => None,
        FnArg::Typed(typed) => Some(&*typed.ty),
    });
    let (message, context, extra) = (types.next(), types.next(), types.next());
    let name = &sig.ident;
    let itself = if mode == Mode::Read { "&self" } else { "&mut self" };
    let shape = format!("`fn {name}({itself}, msg: {}, ctx: &mut Context<'_, Self>)`, ctx if needed", camel_case(name));
    let Some(message) = message.filter(|ty| !is_context(ty)) else {
        problems.at(name.span(), format!("`{name}` takes no message: write {shape}"));
        return None;
    };
    if let Type::Reference(_) | Type::ImplTrait(_) = message {
        let text = "a handler takes its message by value, as a type of the contract";
        problems.push(syn::Error::new_spanned(message, text));
        return None;
    }
    if let Some(extra) = extra.or(context.filter(|ty| !is_context(ty))) {
        let text = format!("a handler takes its message and the context, no more: write {shape}");
        problems.push(syn::Error::new_spanned(extra, text));
        return None;
    }
    Some((message.clone(), context.is_some()))
}

/// The usual name of the message of this method, for advice.
fn camel_case(name: &Ident) -> String {
    let mut camel = String::new();
    for part in name.to_string().trim_start_matches("r#").split('_') {
        let mut letters = part.chars();
        camel.extend(letters.next().map(|letter| letter.to_ascii_uppercase()));
        camel.extend(letters);
    }
    camel
}

/// `&mut Context<..>`, by its name.
pub(super) fn is_context(ty: &Type) -> bool {
    match ty {
        Type::Reference(reference) => last_segment(&reference.elem).is_some_and(|name| name == "Context"),
        _ => false,
    }
}

fn returns(mode: Mode, sig: &Signature, problems: &mut Problems) -> Option<Output> {
    let output = output(sig);
    let ReturnType::Type(_, ty) = &sig.output else {
        return Some(output);
    };
    if mode == Mode::Tell && !is_unit(ty) {
        let text = "nobody waits for what a #[tell] returns: return nothing, or make the message an `ask`";
        problems.push(syn::Error::new_spanned(ty, text));
        return None;
    }
    if let Type::ImplTrait(_) = **ty {
        let text = format!("a handler returns its reply: write `async fn {}(..) -> Result<Reply, Refusal>`", sig.ident);
        problems.push(syn::Error::new_spanned(ty, text));
        return None;
    }
    Some(output)
}

pub(super) fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

pub(super) fn output(sig: &Signature) -> Output {
    let ReturnType::Type(_, ty) = &sig.output else {
        return Output { kind: OutputKind::Reply, span: sig.ident.span() };
    };
    let is_result = last_segment(ty).is_some_and(|name| name == "Result");
    let kind = if is_result { OutputKind::Result } else { OutputKind::Reply };
    Output { kind, span: ty.span() }
}

fn activate(sig: &Signature, problems: &mut Problems) -> Option<Activate> {
    let shape = "`async fn activate(ctx: &mut Context<'_, Self>) -> Result<Self, Error>`";
    if let Some(receiver) = sig.receiver() {
        let text = format!("`activate` makes the actor, so there is no self yet: write {shape}");
        problems.push(syn::Error::new_spanned(receiver, text));
        return None;
    }
    let types: Vec<&Type> = sig
        .inputs
        .iter()
        .filter_map(|input| match input {
            FnArg::Receiver(_) => None,
            FnArg::Typed(typed) => Some(&*typed.ty),
        })
        .collect();
    if types.len() > 1 || !types.iter().all(|ty| is_context(ty)) {
        let text = format!("`activate` takes the context, no more: write {shape}");
        problems.push(syn::Error::new_spanned(&sig.inputs, text));
        return None;
    }
    let output = output(sig);
    if matches!(sig.output, ReturnType::Default) {
        problems.at(sig.ident.span(), format!("`activate` gives the actor back: write {shape}"));
        return None;
    }
    let (name, is_async) = (sig.ident.clone(), sig.asyncness.is_some());
    Some(Activate { name, is_async, takes_context: !types.is_empty(), output })
}

/// A message goes to one method; of several the first counts.
fn one_method_each(handlers: &mut Vec<Handler>, problems: &mut Problems) {
    let mut at = 0;
    while let Some(second) = handlers.get(at) {
        // Methods under a condition may exclude each other.
        let same =
            |first: &&Handler| first.message == second.message && first.cfgs.is_empty() && second.cfgs.is_empty();
        let Some(first) = handlers[..at].iter().find(same) else {
            at += 1;
            continue;
        };
        // Two methods of one name are the compiler's to report.
        if first.name != second.name {
            let (message, first, again) = (show(&second.message), &first.name, &second.name);
            let text = format!(
                "`{message}` is handled by `{first}` and by `{again}`: \
                 give each verb a message type of its own"
            );
            problems.push(syn::Error::new_spanned(&second.message, text));
        }
        handlers.remove(at);
    }
}
