//! The priority of the process.

/// Sets the calling thread's nice value; threads and hooks that it starts from now on have it too. 0: left as it is.
///
/// A process that was started with a higher nice value keeps it: lowering it takes a privilege.
pub fn lower_priority(nice: i32) -> std::io::Result<()> {
    if nice == 0 || rustix::process::getpriority_process(None)? >= nice {
        return Ok(());
    }
    Ok(rustix::process::setpriority_process(None, nice)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own, because what is lowered stays lowered.
    #[test]
    fn priority_goes_down_and_never_up() {
        let nice = |nice| {
            lower_priority(nice).unwrap();
            rustix::process::getpriority_process(None).unwrap()
        };
        let seen = std::thread::spawn(move || {
            let before = nice(0);
            let low = nice(19);
            (before, low, nice(3), std::thread::spawn(move || nice(0)).join().unwrap())
        });
        let (before, low, kept, inherited) = seen.join().unwrap();
        assert!(before <= low);
        assert_eq!((low, kept, inherited), (19, 19, 19));
    }
}
