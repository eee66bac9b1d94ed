//! How a command ends: what is printed, and the exit code.

use std::{error::Error as StdError, io, process::ExitCode};

use dvcr_importer::{
    import::{ImportError, find, in_one_line},
    populate::{ExtractError, PopulateError},
    source::retry::{Verdict, verdict},
};

/// The exit code of a failure that may be gone later: `EX_TEMPFAIL` of `sysexits.h`.
pub(crate) const AGAIN: u8 = 75;

/// The exit code after SIGINT or SIGTERM.
pub(crate) const STOPPED: u8 = 130;

/// Prints why a command failed, and says how it ends: 1 if the same command will fail again, 75 if it may not, 130 if somebody
/// stopped it. `kept` says that the same command goes on where this one ended.
pub(crate) fn report(error: &anyhow::Error, kept: bool) -> ExitCode {
    let code = code(error);
    eprintln!("dvcr-importer: {}", in_one_line(error.as_ref()));
    match (code, kept) {
        (1, false) => {}
        (1, true) => {
            eprintln!(
                "dvcr-importer: what was received is kept: run the same command again when that is mended"
            );
        }
        (_, true) => {
            eprintln!("dvcr-importer: run the same command again: it goes on where it was");
        }
        (AGAIN, false) => eprintln!("dvcr-importer: run the same command again later"),
        (_, false) => eprintln!("dvcr-importer: nothing is kept: the same command begins anew"),
    }
    ExitCode::from(code)
}

/// 1, [`AGAIN`] or [`STOPPED`].
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    let error: &(dyn StdError + 'static) = error.as_ref();
    if let Some(error) = find::<ImportError>(error) {
        return code_of(error.verdict());
    }
    let stopped = matches!(find(error), Some(PopulateError::Cancelled))
        || matches!(find(error), Some(ExtractError::Cancelled));
    if stopped {
        return STOPPED;
    }
    if let Some(verdict) = verdict(error) {
        return code_of(verdict);
    }
    let passing = match find::<dvcr_client::Error>(error) {
        Some(client) => client.is_retryable(),
        None => find::<io::Error>(error).is_some_and(|error| is_passing(error.kind())),
    };
    if passing { AGAIN } else { 1 }
}

fn code_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Final => 1,
        Verdict::Later => AGAIN,
        Verdict::Stopped => STOPPED,
    }
}

fn is_passing(kind: io::ErrorKind) -> bool {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionRefused, ConnectionReset, HostUnreachable, NetworkDown,
        NetworkUnreachable, ResourceBusy, TimedOut,
    };
    matches!(
        kind,
        ConnectionAborted
            | ConnectionRefused
            | ConnectionReset
            | HostUnreachable
            | NetworkDown
            | NetworkUnreachable
            | ResourceBusy
            | TimedOut
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        let check =
            |error: anyhow::Error, expected| assert_eq!(code(&error), expected, "{error:#}");
        let io = |kind| PopulateError::Stream(io::Error::from(kind));
        check(PopulateError::Cancelled.into(), STOPPED);
        check(
            anyhow::Error::from(PopulateError::Cancelled).context("populate"),
            STOPPED,
        );
        check(io(io::ErrorKind::ConnectionReset).into(), AGAIN);
        check(io(io::ErrorKind::InvalidData).into(), 1);
        check(io(io::ErrorKind::StorageFull).into(), 1);
        check(anyhow::anyhow!("no"), 1);
    }
}
