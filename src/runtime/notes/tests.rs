use super::*;
use crate::runtime::waker::is_rung;
use crate::wire::eth::Mac;

fn ip(n: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, n])
}

fn neighbor(n: u8) -> GroupNews {
    GroupNews::Neighbor { ip: ip(n), mac: Mac([2, 0, 0, 0, 0, n]) }
}

fn reset(n: u8) -> Note {
    Note::Reset { remote: SocketAddr::new(ip(n), 443), token: [n; 16] }
}

fn read(notes: &mut Notes) -> usize {
    std::iter::from_fn(|| notes.next()).count()
}

#[test]
fn a_full_mailbox_counts_and_keeps_room_for_what_must_not_be_lost() {
    let mut all = mailboxes(3, 1);
    let second = |n| Instant::ZERO + crate::base::time::Duration::from_secs(n);
    for n in 0..CAPACITY as u64 {
        all[0].tell_news(second(n), neighbor(7));
    }
    let lost = (CAPACITY - ORDINARY) as u64;
    assert_eq!(*all[0].stats(), NoteStats { told: 2 * ORDINARY as u64, lost: 2 * lost, ..NoteStats::default() });
    all[0].tell(&Note::Drain);
    all[0].tell_news(second(0), GroupNews::AddressHeld { ip: ip(1) });
    assert_eq!(all[0].stats().lost, 2 * lost);
    assert_eq!((read(&mut all[1]), read(&mut all[2])), (ORDINARY + 2, ORDINARY + 2));
    assert_eq!((read(&mut all[0]), all[1].stats().heard), (0, ORDINARY as u64 + 2), "nobody hears what he said");
}

/// Requests from outside the group: whoever makes them learns which cores they did not reach.
#[test]
fn cores_that_a_request_does_not_reach_are_named() {
    let members = Members::new(3, 1);
    let mut all = mailboxes_of(&members);
    for _ in 0..CAPACITY {
        members.tell_all(&Note::Drain).unwrap();
    }
    assert_eq!(read(&mut all[1]), CAPACITY);
    let unheard = members.tell_all(&Note::Drain).unwrap_err();
    assert_eq!(unheard, Unheard { cores: vec![0, 2] });
    assert_eq!(unheard.to_string(), "cores 0, 2 do not read their messages");
    assert_eq!(read(&mut all[1]), 1, "the others do not keep it from a core");
    read(&mut all[2]);
    assert_eq!(members.tell_all(&Note::Drain).unwrap_err().to_string(), "core 0 does not read its messages");
}

#[test]
fn strangers_cannot_flood_the_other_cores() {
    let mut all = mailboxes(2, 1);
    let now = Instant::from_nanos(1);
    for _ in 0..10_000 {
        all[0].pass_on(now, &reset(1));
        all[1].tell_news(now, GroupNews::Claimed { ip: ip(1), mac: Mac([2; 6]), uses: true });
    }
    assert_eq!(read(&mut all[1]), RESETS as usize);
    assert_eq!(all[0].stats().withheld, 10_000 - u64::from(RESETS));
    assert_eq!(read(&mut all[0]), CLAIMS as usize);
}

/// A flood of unsolicited answers must not use up the limit that real answers depend on.
#[test]
fn each_question_lets_one_answer_pass() {
    let wanted = Wanted::new(5);
    assert!(!wanted.is_answer(ip(1)));
    wanted.ask(ip(1));
    wanted.ask(ip(2));
    (3..200).for_each(|n| assert!(!wanted.is_answer(ip(n))));
    assert!(wanted.is_answer(ip(1)) && !wanted.is_answer(ip(1)));
    wanted.ask(ip(2));
    assert!(wanted.is_answer(ip(2)) && !wanted.is_answer(ip(2)));
}

#[test]
fn all_are_over_when_the_last_one_is() {
    let all = mailboxes(3, 1);
    assert!(!all[0].all_over(true) && !all[1].all_over(true) && !all[2].all_over(false));
    assert!(!all[1].all_over(false), "it got more to do");
    assert!(!all[2].all_over(true));
    assert!(all[1].all_over(true) && all[0].all_over(true));
}

#[test]
fn sleeping_cores_are_woken() {
    let mut all = mailboxes(3, 1);
    let wakers = [Waker::new(), Waker::new()];
    for (notes, waker) in all[1..].iter().zip(&wakers) {
        waker.prepare();
        notes.woken_by(waker);
    }
    let sleep = || wakers.iter().for_each(Waker::fall_asleep);
    let woken = || [is_rung(&wakers[0]), is_rung(&wakers[1])];
    sleep();
    assert_eq!(woken(), [false; 2]);
    all[0].tell(&Note::Drain);
    assert_eq!(woken(), [true; 2], "by notes");
    sleep();
    all[0].wake(2);
    assert_eq!(woken(), [false, true], "by frames");
    sleep();
    all[2].all_over(true);
    assert_eq!(woken(), [true; 2], "by the end");
}
