//! A peer refuses a quick mode and does not say which.

use super::*;

/// Both hosts with a second tunnel, `u`, and host 0 with quick modes open for both, of which no message has
/// arrived.
fn two_open() -> Two {
    let second = [0, 1].map(|host| {
        let (me, peer) = (address(host).ip(), address(1 - host).ip());
        format!(
            "[[tunnel]]\nname = \"u\"\ntsource = \"{me}\"\ntdestination = \"{peer}\"\nsource = \"10.{}.0.0/16\"\n\
             destination = \"10.{}.0.0/16\"\naction = \"aes128-sha1\"\n",
            host + 10,
            11 - host,
        )
    });
    let mut two = Two::new(["", ""], [&second[0], &second[1]]);
    two.initiate();
    let pair = two.hosts[0].engine.pairs()[0].pair;
    two.wire = |message| (message[18] != ExchangeType::QUICK_MODE.0).then_some(message);
    two.command(0, Command::Rekey { pair });
    two.command(0, Command::Initiate { tunnel: "u".into() });
    two.wire = Some;
    two
}

fn refuse(two: &mut Two, message_id: u32, spi: Vec<u8>) {
    let content = notification(NotifyKind::NO_PROPOSAL_CHOSEN, spi);
    let refusal = two.sealed(1, message_id, ExchangeType::INFORMATIONAL, content);
    two.deliver(0, &refusal);
}

fn open(two: &Two) -> usize {
    two.hosts[0].engine.isakmp.values().flat_map(|sa| sa.exchanges.values()).filter(|x| x.request.is_some()).count()
}

fn refused(two: &Two) -> usize {
    two.hosts[0].audit.iter().filter(|e| e.level == policy::audit::Level::Error).count()
}

#[test]
fn what_the_peer_answers_is_not_what_it_refused() {
    let mut two = two_open();
    let firsts: Vec<_> = two.hosts[0].sent.iter().rev().take(2).cloned().collect();
    refuse(&mut two, 77, Vec::new());
    assert_eq!((open(&two), refused(&two)), (2, 0), "it may be either");
    // Of the first tunnel: it is answered, so the second was refused.
    two.deliver(1, &firsts[1]);
    assert_eq!((open(&two), refused(&two)), (0, 1));
    let last = two.hosts[0].audit.iter().rfind(|e| e.level == policy::audit::Level::Error).unwrap();
    assert!(last.text.contains("NO-PROPOSAL-CHOSEN") && last.text.contains("tunnel u"), "{}", last.text);
    assert_eq!(two.pairs()[0], 2, "the old pair and its successor");
}

#[test]
fn what_may_have_been_refused_is_not_waited_for_as_long() {
    let mut two = two_open();
    two.wire = |message| (message[18] != ExchangeType::QUICK_MODE.0).then_some(message);
    refuse(&mut two, 77, Vec::new());
    two.seconds(6);
    assert_eq!((open(&two), refused(&two)), (2, 0), "sent again, in case it was lost");
    two.seconds(2);
    assert_eq!((open(&two), refused(&two)), (0, 2));
}

#[test]
fn a_refusal_that_names_the_spi_is_clear() {
    let mut two = two_open();
    let spi = two.hosts[0]
        .engine
        .isakmp
        .values()
        .flat_map(|sa| sa.exchanges.values())
        .find_map(|x| x.offered_spi().filter(|_| &*x.tunnel == "u"));
    refuse(&mut two, 77, spi.unwrap().to_be_bytes().to_vec());
    assert_eq!((open(&two), refused(&two)), (1, 1));
}
