//! How a command ends: what is printed, and the exit code.

use std::{error::Error as StdError, process::ExitCode};

use dvcr_importer::{
    import::{ImportError, in_one_line},
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
        (1, _) => {}
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
    if let Some(error) = error.downcast_ref::<ImportError>() {
        return match error.verdict() {
            Verdict::Final => 1,
            Verdict::Later => AGAIN,
            Verdict::Stopped => STOPPED,
        };
    }
    let mut again = false;
    for cause in error.chain() {
        if matches!(cause.downcast_ref(), Some(PopulateError::Cancelled))
            || matches!(cause.downcast_ref(), Some(ExtractError::Cancelled))
        {
            return STOPPED;
        }
        match verdict(cause) {
            Some(Verdict::Stopped) => return STOPPED,
            Some(Verdict::Later) => return AGAIN,
            Some(Verdict::Final) => return 1,
            None => {}
        }
        // An io::Error gives what it wraps as its own text, not as a cause.
        let inner: Option<&(dyn StdError + 'static)> = match cause.downcast_ref::<std::io::Error>()
        {
            Some(io) => {
                again |= is_passing(io.kind());
                io.get_ref().map(|inner| inner as _)
            }
            None => Some(cause),
        };
        let client = inner.and_then(|inner| inner.downcast_ref::<dvcr_client::Error>());
        if let Some(client) = client {
            return if client.is_retryable() { AGAIN } else { 1 };
        }
    }
    if again { AGAIN } else { 1 }
}

fn is_passing(kind: std::io::ErrorKind) -> bool {
    use std::io::ErrorKind::{
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
    use std::io;

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
