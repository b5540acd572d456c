/*
 * A model of Elector's protocol: one Lease, two candidates, and whatever may go wrong between them. What is checked
 * is the promise of PROTOCOL.md: never two callbacks at once, and with SUSPEND never two valid terms. README.md maps each
 * part to a rule and to the Go code, and says what is not modelled. Run it by `sh model/run.sh`.
 *
 * Candidates are freer here than in Go: they may do at any time, or never, what the Go code does at a certain time.
 * So what holds here does not depend on retry periods, jitter or schedulers, only on the rules.
 *
 * Time is counted in ticks. Only ages are kept, never dates, and versions and writes are renumbered after each step
 * (see canon), so the states are finitely many although a run may last for ever.
 */

/* ---- The scope. run.sh overrides it by -D. ---- */

#ifndef LD0
#define LD0 4 /* LeaseDuration of candidate 0, in ticks */
#endif
#ifndef LD1
#define LD1 LD0
#endif
#ifndef RD0
#define RD0 1 /* RenewDeadline */
#endif
#ifndef RD1
#define RD1 RD0
#endif
#ifndef STOP
#define STOP 1 /* how long a callback may take to return once the term's authority has ended */
#endif
#ifndef DRIFT
#define DRIFT 2 /* NO_DRIFT: the clocks run at one rate; candidate 0's clock may stand still for a tick after each DRIFT ticks: it is slower by up to DRIFT+1 : DRIFT */
#endif
#ifndef PATIENT
#define PATIENT 1 /* ticks after which a write without an answer is given up or overdue (attemptLimit) */
#endif
#ifndef FAULTS
#define FAULTS 1 /* how many faults in one run, of any kinds */
#endif
#define REQUESTS 1 /* of these kinds: writes are lost, or their replies, or go on after they were given up */
#define DELETES 2  /* an outside hand deletes the Lease */
#define CRASHES 4  /* a process crashes and starts again */
#define EDITS 8    /* an outside hand edits its holder */
#define BLURS 16   /* an outside hand rewrites the record in its holder's name: cuts digits of its times, or drops them */
#define REPLAYS 32 /* an outside hand writes an older state of a candidate's term over the record */
#define RESTORES 64 /* the API goes back to a snapshot, once: the record, its version, and the versions to come */
#ifndef KINDS
#define KINDS 15
#endif
/*
 * SUSPEND: RecoveryDeadline is set (S14). Callbacks take as long as they like.
 * NOTICE:  of how many ticks a process resigns that ends itself (S8).
 * DEATHS:  candidate 0 leaves marks for its kubelet, which tells both of them once it has died (S13).
 */
#if (KINDS & 112) || defined(STATEDIR) || defined(DEATHS)
#define TIMES /* acquireTime matters; elsewhere it would only make more states */
#endif
#define FAULT(kind) (faults > 0 && (KINDS & kind))
#ifndef SKEW
#define SKEW 2 /* DROP_S3 only: how far the wall clocks are apart */
#endif

#define LD(i) (i == 0 -> LD0 : LD1)
#define RD(i) (i == 0 -> RD0 : RD1)

#ifdef SAME_NAME
#define NAME(i) 1 /* both candidates have one identity, by mistake */
#else
#define NAME(i) (1 + i)
#endif
#define NOBODY 0
#define STRANGER 3

/* ---- Records ---- */

/* Every copy of the Lease, the API's own among them, is a slot of these arrays. */
#define API 0            /* the Lease as it is */
#define SEEN(i) (1 + i)  /* seen: as candidate i last saw it; keeps the last claim when there is none any more */
#define NEWS(i) (3 + i)  /* an event on its way to candidate i by its watch */
#define REPLY(i) (5 + i) /* a reply on its way to candidate i */
#define OVERDUE(i) (7 + i) /* TWO: a reply on its way, of the older of two writes */
#if KINDS & 64
#define SNAP 9 /* what the API may go back to */
#define RECORDS 10
#else
#define RECORDS 9
#endif

bool exists[RECORDS];
byte holder[RECORDS];
byte duration[RECORDS]; /* leaseDurationSeconds, in ticks */
bool uid[RECORDS];      /* changes whenever the Lease is created */
byte ver[RECORDS];      /* resourceVersion (see canon); 0: none */

/* Which write made a record: its acquireTime and renewTime, unique by their random digits. An edit keeps them. The
   slots after those of the records are what the candidates remember of their own writes. */
#define WROTE(i) (RECORDS + i)  /* own.wrote: the last one known to have been applied */
#define KEPT(i) (RECORDS + 2 + i)   /* own.unconfirmed: one in doubt that is the record seen; */
#define DOUBT(i) (RECORDS + 4 + i) /* ... a take or renewal sent since; */
#define DOUBTF(i) (RECORDS + 6 + i) /* ... a release sent since */
#define CALLED(i) (RECORDS + 8 + i) /* what the request under way writes */
#define GHOST(i) (RECORDS + 10 + i)  /* what a request that was given up still may write */
#define FILED(i) (RECORDS + 12 + i)  /* acq only, STATEDIR: what the file says; DEATHS: the mark that 0 has left last */
#define DEAD(i) (RECORDS + 14 + i)   /* acq only: of this one i has the proof that its writer is dead. STATEDIR: what the file said when it got the lock */
#ifdef DEATHS
#define BEFORE (RECORDS + 16) /* acq only, scratch: of the record that was seen before */
#define WRITES (RECORDS + 17)
#else
#define WRITES (RECORDS + 16)
#endif
#define NEWEST 8  /* the version of the API */
#define UNDONE 10 /* the versions from this on are higher than the API's: a restore has undone them */
#define LAST 14   /* the highest of these: what the API had when it was restored */
#ifdef REPEATS
#define AHEAD LAST /* a documented limit: the version is one that was undone, so a PUT on what was undone fits */
#else
#define AHEAD 15  /* a version above all of these */
#endif
#define SHARED 10 /* names of writes up to this are known to all */
#define FRESH 17  /* a write that is new */
#define ALIEN 18  /* a write of an outside hand that changed the times */
byte write[WRITES];
byte acq[WRITES]; /* acquireTime: which write began the term; 0: none that can be known, as digits were cut or it was dropped */

#define FREEDUR 1 /* a release leaves one second */
#ifdef NOTICE
#define released(r) (exists[r] && holder[r] == NOBODY && (duration[r] == FREEDUR || duration[r] == NOTICE))
#else
#define released(r) (exists[r] && holder[r] == NOBODY && duration[r] == FREEDUR)
#endif

/* ---- Candidates ---- */

mtype = { standby, running, releasing, resigned }; /* phases; leading and draining are one, see Candidate */
mtype = { none, take, renew, free, leave };       /* writes; leave: a release with notice */

mtype phase[2] = standby;
bool looked[2], stale[2];
bool overtaken[2]; /* in this term another's record was seen */
byte binds[2];
byte patience[2]; /* until seen.expires, by the candidate's own clock */
byte age[2];      /* since own.sent, by the candidate's own clock */
byte doubted[2];  /* while it runs: since doubt.sent, when the renewal in DOUBT was first sent, by the same clock */

mtype call[2] = none; /* one request at a time */
bool done[2];  /* it was applied, and the reply is on its way */
bool post[2];  /* it is a POST, applied if there is no Lease; otherwise a PUT, applied if the record is still the one seen */
byte called[2]; /* the age of the request, by the candidate's own clock */
byte parked[2]; /* 1: it is a PUT on the record that is in the snapshot, and not the API's now; 2: which a restore has brought back */

mtype ghost[2] = none; /* a request that was given up and still is on its way; one a candidate */
bool gpost[2];

/* TWO: two writes are under way at once. The older is overdue and a ghost, but its reply may count: it is from a write of
   this kind, this old, and a POST or not, which the copy in OVERDUE says was applied. none: there is no such reply. */
mtype older[2] = none;
bool opost[2], odone[2];
byte oage[2];

bool cut[2];        /* the watch has ended after the event on its way */
mtype = { nothing, changed, deleted };
mtype news[2] = nothing;

/* S12: who has the lock of a directory (1 + candidate; 0: nobody), and what its file says (FILED). */
#ifdef SAME_DIR
#define DIR(i) 0 /* both candidates are given one directory, by mistake */
#else
#define DIR(i) i
#endif
byte lock[2];
#ifdef DEATHS
#define locked(i) true
#ifdef DROP_S13_TIMES
#define proven(i) (exists[SEEN(i)] && acq[DEAD(i)] != 0 && holder[SEEN(i)] == NAME(0))
#else
#define proven(i) (exists[SEEN(i)] && acq[DEAD(i)] != 0 && holder[SEEN(i)] == NAME(0) && acq[SEEN(i)] == acq[DEAD(i)] && !ofOld(i))
#endif
/* ofOld: the record has come back, or is of a term after which another was seen: somebody may have led since. */
#if defined(DROP_S13_BACK)
#define ofOld(i) past[i]
#elif defined(DROP_S13_PAST)
#define ofOld(i) came[i]
#else
#define ofOld(i) (came[i] || past[i])
#endif
#elif defined(STATEDIR)
#ifdef DROP_S12_LOCK
#define locked(i) true
#else
#define locked(i) (lock[DIR(i)] == 1 + i)
#endif
#ifdef DROP_S12_TIMES
#define proven(i) (exists[SEEN(i)] && acq[DEAD(i)] != 0 && holder[SEEN(i)] == NAME(i))
#else
#define proven(i) (exists[SEEN(i)] && acq[DEAD(i)] != 0 && acq[SEEN(i)] == acq[DEAD(i)])
#endif
#else
#define locked(i) false
#define proven(i) false
#endif

/* By symmetry it is enough that one process has a directory, and crashes; but not if both have the same. */
#if (defined(STATEDIR) || defined(DEATHS)) && !defined(SAME_DIR)
#define files(i) (i == 0)
#else
#define files(i) true
#endif

#define runs(i) (phase[i] == running)

/* S8, a process that ends itself: its callback still runs, for so many ticks at most. */
#ifdef NOTICE
byte left[2];
#define inside(i) (runs(i) || phase[i] == resigned)
#else
#define inside(i) runs(i)
#endif

/* S14. over: the term is lost. A term that is suspended is not: it may be valid again. */
#ifdef SUSPEND
bool suspended[2], over[2];
bool succeeded[2]; /* another has led since this term began: it must never be valid again */
#define paused(i) suspended[i]
#if defined(DROP_S14_GATE)
#define valid(i) runs(i) /* the gate stays open while the callback runs */
#elif defined(DROP_S6_OVERTAKEN)
#define valid(i) (runs(i) && !suspended[i] && !over[i])
#else
#define valid(i) (runs(i) && !suspended[i] && !over[i] && !overtaken[i])
#endif
#ifdef DROP_S14_SENT
#define recent(i) true
#else
#define recent(i) (age[i] < RD(i))
#endif
/* resume: a write is known to have been applied, so the term is valid again, if it was sent less than RenewDeadline ago. */
inline resume(i) {
	if
	:: runs(i) && suspended[i] && recent(i) ->
		suspended[i] = 0;
		printf("%d: VALID AGAIN\n", i);
#ifdef REACH
		resumed[i] = 1;
#endif
		assert(!valid(i) || !(valid(1 - i) || succeeded[i])) /* never two, and never one after the next */
	:: else
	fi
}
#else
#define paused(i) false
#define valid(i) inside(i)
#define resume(i) skip
#endif

#ifdef DEATHS
bool died;    /* process 0 has; the one that is started then does not again */
bool past[2]; /* another record was seen since that of the dead */
bool came[2]; /* the record seen is older than one that was seen before, and has come back */
#define DIED died
#else
#define DIED false
#endif

/* ---- The world ---- */

byte faults = FAULTS;
mtype = { untaken, current, bygone, restored };
mtype snap = untaken; /* a snapshot: not taken; of the record as it is; of an older one; used */
bool ahead; /* after a restore: the next version is higher than those undone, as other objects have versions, too */
byte even = DRIFT; /* ticks of candidate 0's clock since it stood still */
bool born;         /* there has been a Lease */

/* The documented limit: a Lease was deleted that this candidate has never seen, so it cannot know. */
bool blind[2];

#ifdef REACH
/* Is it all there? Each of these has to be reachable, or the check says nothing. */
bool led[2], ghosted, putback, adopted, proved, late, counted[2], caught, resumed[2], noticed;
#if REACH == 1 /* both have led */
#define reached (led[0] && led[1])
#elif REACH == 2 /* a write that was given up was applied */
#define reached (ghosted)
#elif REACH == 3 /* a leader has put a deleted Lease back */
#define reached (putback)
#elif REACH == 4 /* a win in doubt was adopted, and led on */
#define reached (adopted && (runs(0) || runs(1)))
#elif REACH == 6 /* a process has led without waiting, as it proved that the holder is dead */
#define reached (proved && runs(0))
#elif REACH == 10 /* the same, another process */
#define reached (proved && runs(1))
#elif REACH == 11 /* a term is valid again after a suspension, and another has led since */
#define reached (resumed[0] && runs(1))
#elif REACH == 12 /* both callbacks run, one of them suspended and not told */
#define reached (runs(0) && runs(1) && !overtaken[0])
#elif REACH == 13 /* a process has resigned, and another has led since */
#define reached (noticed && runs(1))
#elif REACH == 7 /* the older of two writes has won */
#define reached (late && (runs(0) || runs(1)))
#elif REACH == 8 /* a renewal has counted because it was seen, and another has led since */
#define reached (counted[0] && runs(1))
#elif REACH == 9 /* 0 led at a restore, and 1 has led since */
#define reached (caught && runs(1))
#else /* 5: both have led, and it is led after a deletion */
#define reached (putback && led[0] && led[1] && (runs(0) || runs(1)))
#endif
#endif

/* ---- Finitely many states ---- */

byte j, n, w; /* scratch, 0 between steps */

/* canon gives one name to states that nobody can tell apart. Versions are only compared, and by one candidate at a time,
   with the API's the highest but for those that a restore has undone: so they become ranks in each candidate's slots. Of
   writes it only matters which are the same: those in the API, and those that may still get there, are told apart by all;
   others by the candidate alone that has seen them. Of UIDs it only matters whether they are the API's. In C because it is
   most of the work. */
c_code {
	static void rankOf(int i)
	{	unsigned char *v[4], t[4];
		int k, m;

		v[0] = &now.ver[SEEN(i)]; v[1] = &now.ver[NEWS(i)]; v[2] = &now.ver[REPLY(i)]; v[3] = &now.ver[OVERDUE(i)];
		for (k = 0; k < 4; k++) {
			unsigned char lower = 0; /* how many different versions below this one */
			for (m = 0; m < 4; m++)
				if (*v[m] && *v[m] < *v[k] && !(m > 0 && *v[m] == *v[0]) && !(m > 1 && *v[m] == *v[1]) && !(m > 2 && *v[m] == *v[2])) lower++;
			t[k] = *v[k] == 0 ? 0 : *v[k] == now.ver[API] ? NEWEST : *v[k] < now.ver[API] ? 1 + lower : *v[k] == LAST ? LAST : UNDONE + lower;
		}
		for (k = 0; k < 4; k++) *v[k] = t[k];
	}
	static unsigned char nameOf[ALIEN + 1], names;
	static void name(int slot)
	{	unsigned char w = now.write[slot];
		if (w == ALIEN) return;
		if (w && !nameOf[w]) nameOf[w] = ++names;
		now.write[slot] = nameOf[w];
	}
	static void canonize(void)
	{	int i, k;
		unsigned char shared[ALIEN + 1], kept[WRITES];

		for (i = 0; i < 2; i++) rankOf(i);
		if (now.ver[API]) now.ver[API] = NEWEST;
#if KINDS & 64
		for (k = 0; k < RECORDS && now.ver[k] <= NEWEST; k++) ;
		if (k == RECORDS) now.ahead = 0; /* nobody knows any more what was undone */
		now.ver[SNAP] = 0;
#endif

		memset(nameOf, 0, sizeof nameOf); names = 0;
		name(API);
#if KINDS & 64
		name(SNAP);
#endif
		for (i = 0; i < 2; i++) { name(CALLED(i)); name(GHOST(i)); name(DOUBT(i)); name(DOUBTF(i)); }
		memcpy(shared, nameOf, sizeof shared);
		for (i = 0; i < 2; i++) {
			memcpy(nameOf, shared, sizeof shared); names = SHARED;
			name(SEEN(i)); name(NEWS(i)); name(REPLY(i)); name(OVERDUE(i)); name(WROTE(i)); name(KEPT(i));
		}

		/* Of acquireTimes, too, it only matters which are the same. */
#if (defined(STATEDIR) || defined(DEATHS)) && !(KINDS & 112) && !defined(DROP_S12_TIMES) && !defined(DROP_S13_TIMES)
		/* Here only which are those of the files. One that is nowhere else any more never comes back. */
		for (k = 0; k < WRITES; k++) {
			int m, used = 0;
			for (m = 0; m < WRITES; m++)
				if (m != k && now.acq[m] == now.acq[k] && (m >= RECORDS || m == API || now.exists[m]))
					used |= (m >= FILED(0)) ? 1 : 2;
			if (!(used & (k >= FILED(0) ? 2 : 1))) kept[k] = 0; else kept[k] = now.acq[k];
		}
		for (k = 0; k < WRITES; k++) now.acq[k] = kept[k];
#endif
		memset(nameOf, 0, sizeof nameOf); names = 0;
		for (k = 0; k < WRITES; k++) {
			unsigned char a = now.acq[k];
#ifndef TIMES
			a = 0;
#endif
			if (k < RECORDS && k != API && !now.exists[k]) a = 0;
			if (a && !nameOf[a]) nameOf[a] = ++names;
			now.acq[k] = nameOf[a];
		}

		if (now.uid[API]) {
			for (k = 0; k < RECORDS; k++) if (k == API || now.exists[k]) now.uid[k] = !now.uid[k];
		}
	}
};

inline canon() {
	c_code { canonize(); };
	j = 0; n = 0; w = 0
}

inline copy(from, to) {
	exists[to] = exists[from]; holder[to] = holder[from]; duration[to] = duration[from];
	uid[to] = uid[from]; ver[to] = ver[from]; write[to] = write[from]; acq[to] = acq[from]
}

inline clear(r) {
	exists[r] = 0; holder[r] = 0; duration[r] = 0; uid[r] = 0; ver[r] = 0; write[r] = 0; acq[r] = 0
}

inline hangUp(i) {
	call[i] = none; done[i] = 0; post[i] = 0; called[i] = 0; parked[i] = 0;
	write[CALLED(i)] = 0; acq[CALLED(i)] = 0; clear(REPLY(i))
}

/* ignore: the reply to the older write, if there ever is one, counts no more. */
inline ignore(i) {
	older[i] = none; opost[i] = 0; odone[i] = 0; oage[i] = 0; clear(OVERDUE(i))
}

/* ---- The API ---- */

/* notify follows each change of the Lease. A watch tells all changes in order or ends: here one event may be on its way,
   and at the next the watch ends after that. So events are late or lost at no cost in faults. The writer (2: none) is
   not told of its own write: the reply tells it, or a look. */
inline notify(writer) {
	ver[API] = (ahead -> AHEAD : NEWEST + 1);
	for (j : 0 .. 1) {
#ifndef DROP_S4
		if
		:: snap == current && call[j] != none && j != writer && !post[j] && !done[j] -> parked[j] = 1
		:: !(snap == current || parked[j] == 1) && call[j] != none && j != writer && !post[j] && !done[j] -> stale[j] = 1; hangUp(j) /* a conflict, now certain */
		:: else
		fi;
		if
		:: ghost[j] != none && !gpost[j] -> ghost[j] = none; write[GHOST(j)] = 0; acq[GHOST(j)] = 0;
			if
			:: older[j] != none && !odone[j] -> ignore(j); stale[j] = 1
			:: else
			fi /* it can never be applied any more */
		:: else
		fi;
#endif
		if
		:: j != writer && news[j] == nothing && !cut[j] ->
			copy(API, NEWS(j));
			if
			:: exists[API] -> news[j] = changed
			:: else -> news[j] = deleted
			fi
		:: j != writer && news[j] != nothing -> cut[j] = 1
		:: else
		fi
	};
	snap = (snap == current -> bygone : snap)
}

/* applicable: S4, every write is conditional. A PUT that a change has overtaken is gone already (see notify, send). */
#define applicable(isPost) (!isPost || !exists[API])

/* outside: the documented limit. The check is about the others. */
#ifdef NEWCOMER
#define outside(i, kind, isPost) false
#else
#define outside(i, kind, isPost) (isPost && kind == take && blind[i])
#endif

/* apply changes the Lease by a write of candidate i. */
inline apply(i, kind, by, since) {
	if
	:: !exists[API] -> uid[API] = !uid[API]
	:: else
	fi;
	exists[API] = 1; born = 1;
	write[API] = by; acq[API] = since;
	if
	:: kind == free -> holder[API] = NOBODY; duration[API] = FREEDUR
#ifdef NOTICE
	:: kind == leave -> holder[API] = NOBODY; duration[API] = NOTICE
#endif
	:: else -> holder[API] = NAME(i); duration[API] = LD(i)
	fi;
	notify(i)
}

#define under(i) (call[i] != none && !done[i])
#define goesThrough(i) (applicable(post[i]) && parked[i] != 1 && !outside(i, call[i], post[i]))

proctype Server(bit i) { /* one for each candidate */
	do
	:: d_step { under(i) && goesThrough(i) ->
		printf("API: applies %d's write\n", i);
		apply(i, call[i], write[CALLED(i)], acq[CALLED(i)]);
		copy(API, REPLY(i)); done[i] = 1;
		canon() }
	/* A conflict, and its reply: a late reply is no different from a late request. The candidate looks (conflicted). */
	:: d_step { under(i) && !goesThrough(i) ->
		printf("API: refuses %d's write as a conflict\n", i);
		stale[i] = 1; hangUp(i); canon() }
	/* A fault: the client's own transport repeats a request that was applied, and gets a conflict. */
	:: d_step { FAULT(REQUESTS) && under(i) && goesThrough(i) ->
		faults--;
		printf("API: applies %d's write, then refuses its repetition\n", i);
		apply(i, call[i], write[CALLED(i)], acq[CALLED(i)]);
		stale[i] = 1; hangUp(i); canon() }

	/* What was given up arrives. If it does not apply it vanishes, but a POST waits: there may be no Lease later on. */
	:: d_step { ghost[i] != none && applicable(gpost[i]) && !outside(i, ghost[i], gpost[i]) ->
		printf("API: applies %d's write, long given up\n", i);
#ifdef REACH
		ghosted = 1;
#endif
		w = write[GHOST(i)]; write[GHOST(i)] = 0; n = acq[GHOST(i)]; acq[GHOST(i)] = 0;
		if
		:: ghost[i] == free -> ghost[i] = none; apply(i, free, w, n)
#ifdef NOTICE
		:: ghost[i] == leave -> ghost[i] = none; apply(i, leave, w, n)
#endif
		:: else -> ghost[i] = none; apply(i, renew, w, n)
		fi;
		gpost[i] = 0;
		if
		:: older[i] != none -> odone[i] = 1; copy(API, OVERDUE(i))
		:: else
		fi;
#ifndef DROP_S4
		if
		:: under(i) && !post[i] -> stale[i] = 1; hangUp(i) /* the younger can only be a conflict now */
		:: else
		fi;
#endif
		canon() }
	od
}

/* An outside hand deletes the Lease or edits its holder. An edit keeps the times of the write. */
inline edit(to) {
	faults--;
	printf("HAND: writes %d into the holder\n", to);
	holder[API] = to;
	notify(2); canon()
}

#ifdef DEATHS
#define state(i) (i == 0 && died -> acq[FILED(0)] : 0) /* of the dead process's term */
#elif defined(STATEDIR)
#define state(i) (acq[FILED(DIR(i))] == 0 -> acq[DEAD(i)] : acq[FILED(DIR(i))])
#else
#define state(i) acq[WROTE(i)]
#endif

/* known: what is written over, everybody has seen. A documented limit: nobody can go by what he has not seen. */
#if defined(UNSEEN) || (!defined(STATEDIR) && !defined(DEATHS) && !defined(SEEN_ALL))
#define known true
#elif defined(UNCOUNTED)
#define known (past[0] && past[1] && ver[SEEN(0)] == ver[API] && ver[SEEN(1)] == ver[API]) /* the dead one's record, too */
#else
#define known (looked[0] && looked[1] && ver[SEEN(0)] == ver[API] && ver[SEEN(1)] == ver[API])
#endif

/* replay writes an older state of i's term over the record, whoever's that is by now. */
inline replay(i) {
	faults--;
	printf("HAND: writes an older state of %d's term\n", i);
	holder[API] = NAME(i); duration[API] = LD(i);
	acq[API] = state(i);
#ifdef LATEST
	write[API] = write[WROTE(i)]; /* its last: just what i has written */
#else
	write[API] = ALIEN;
#endif
	notify(2); canon()
}

#if KINDS & 64
/* told: what a restore undoes, candidate i has seen, or it is its own write, whose reply is on its way. Who has not seen it
   is not bound by it: a documented limit. So the restore happens only when both are told, and then both are judged. */
#ifdef UNSEEN
#define told(i) true
#else
#define told(i) ((looked[i] && ver[SEEN(i)] == ver[API]) || (done[i] && ver[REPLY(i)] == ver[API]))
#endif

/* fitting: a release that was sent before the restore may still fit. A documented limit: if the API's versions have by then
   overtaken those that were undone, it frees the Lease. Nobody can tell that from a release by the last holder. */
#ifdef LATE_RELEASE
#define fitting(i) false
#else
#define fitting(i) (under(i) && call[i] == free && parked[i] == 2)
#endif

/* undo gives a version that a restore has undone a rank above those to come. */
inline undo(r) {
	if
	:: ver[r] != 0 -> ver[r] = (ver[r] == ver[API] -> LAST : UNDONE + ver[r])
	:: else
	fi
}

/* restore: the API goes back, and every watch ends: what was on its way is lost, and when that is noticed is open (see
   Candidate). A write on what was undone can only conflict; one on what is back may fit. */
inline restore() {
	for (j : 0 .. 1) {
		undo(SEEN(j)); undo(REPLY(j));
		news[j] = nothing; clear(NEWS(j)); cut[j] = 1;
		if
		:: parked[j] == 1 -> parked[j] = 2
		:: parked[j] == 0 && call[j] != none && !post[j] && !done[j] -> stale[j] = 1; hangUp(j)
		:: else
		fi
	};
	copy(SNAP, API); ver[API] = NEWEST;
	clear(SNAP); snap = restored;
#ifdef REACH
	caught = runs(0)
#endif
}
#endif

proctype Hand() {
	do
#if KINDS & 64
	:: d_step { FAULT(RESTORES) && snap == untaken &&
#ifdef DELETED
		released(API) && /* others bind by themselves */
#endif
#ifdef DEATHS
		died && exists[API] && holder[API] != NOBODY && acq[API] != 0 && acq[API] == acq[FILED(0)] && /* of no others are there proofs */
#endif
		true ->
		printf("HAND: takes a snapshot of the API\n");
		copy(API, SNAP); snap = current; canon() }
	:: d_step { FAULT(RESTORES) && snap == bygone &&

#ifdef DELETED
		faults == 1 && /* two faults: a deletion, and then the restore */
#endif
		told(0) && told(1) ->
		faults--;
		printf("HAND: restores the API from the snapshot\n");
		restore(); canon() }
	:: d_step { snap == restored && !ahead && !fitting(0) && !fitting(1) ->
		printf("HAND: the API's versions overtake those that were undone\n");
		ahead = 1; canon() }
#endif
#ifndef NO_DELETE
	:: d_step { FAULT(DELETES) && exists[API] &&
#ifdef DELETED
		faults == 2 &&
#endif
		true ->
		faults--;
		printf("HAND: deletes the Lease\n");
		for (j : 0 .. 1) { blind[j] = blind[j] || !exists[SEEN(j)] }
		exists[API] = 0; holder[API] = 0; duration[API] = 0; write[API] = 0; acq[API] = 0;
		notify(2); canon() }
#endif
	:: d_step { FAULT(BLURS) && exists[API] && holder[API] != NOBODY && acq[API] != 0 ->
		faults--;
		printf("HAND: cuts the times\n");
		write[API] = ALIEN; acq[API] = 0;
		notify(2); canon() }
	:: d_step { FAULT(REPLAYS) && exists[API] && state(0) != 0 && known -> replay(0) }
	:: d_step { FAULT(REPLAYS) && exists[API] && state(1) != 0 && known -> replay(1) }
	:: d_step { FAULT(EDITS) && exists[API] && holder[API] != NOBODY -> edit(NOBODY) }
	:: d_step { FAULT(EDITS) && exists[API] && holder[API] != NAME(0) -> edit(NAME(0)) }
	:: d_step { FAULT(EDITS) && exists[API] && holder[API] != NAME(1) -> edit(NAME(1)) }
	:: d_step { FAULT(EDITS) && exists[API] && holder[API] != STRANGER -> edit(STRANGER) }
	od
}

/* ---- What a candidate sees ---- */

#define doubts(i, by) (by != 0 && (by == write[KEPT(i)] || by == write[DOUBT(i)] || by == write[DOUBTF(i)]))

/* owns: S5, ours by our own writes. A Lease that is missing is still the leader's to put back. */
#ifdef DROP_S5
#define byOwnWrite(i) (holder[SEEN(i)] == NAME(i))
#else
#define byOwnWrite(i) ((holder[SEEN(i)] == NAME(i) || holder[SEEN(i)] == NOBODY) && \
	((write[WROTE(i)] != 0 && write[SEEN(i)] == write[WROTE(i)]) || doubts(i, write[SEEN(i)])))
#endif
/* S5: a record that an outside hand has rewritten in our name is ours for as long as our callback runs and nothing of
   another's was seen in the term: by our acquireTime, or as it has none that can be known and replaced ours. Not later: when
   the callback has returned, a release may have been applied and another may have led since. */
#ifdef DROP_S5_TERM
#define inTerm(i) (phase[i] != standby)
#else
#ifdef DROP_S14_EDITS
#define inTerm(i) runs(i)
#else
#define inTerm(i) (runs(i) && !paused(i))
#endif
#endif
#define replacedOurs(i) (inTerm(i) && holder[SEEN(i)] == NAME(i) && acq[SEEN(i)] == 0)
#if !(KINDS & 112)
#define byTerm(i) false
#else
#define byTerm(i) (!overtaken[i] && (replacedOurs(i) || \
	(inTerm(i) && holder[SEEN(i)] == NAME(i) && acq[WROTE(i)] != 0 && acq[SEEN(i)] == acq[WROTE(i)])))
#endif
#ifdef DROP_S14_MISSING
#define toPutBack(i) true
#else
#define toPutBack(i) !paused(i)
#endif
#ifdef DROP_S6_OVERTAKEN
#define owns(i) (!exists[SEEN(i)] -> toPutBack(i) : (byOwnWrite(i) || byTerm(i)))
#else
#define owns(i) (!overtaken[i] && (!exists[SEEN(i)] -> toPutBack(i) : (byOwnWrite(i) || byTerm(i))))
#endif

/* ends: S3, patience counts from receipt (which is now), for the record's duration. A standby that goes by the record's
   timestamp is early by as much as the clocks are apart. */
#if defined(DROP_S3)
#define ends(i, r) ((duration[r] > binds[i] -> duration[r] : binds[i]) - SKEW)
#elif defined(DROP_S3_DURATION)
#define ends(i, r) LD(i)
#else
#define ends(i, r) (duration[r] > binds[i] -> duration[r] : binds[i])
#endif

/* settle is own.saw: a conditional write on the record before can not be applied any more; the doubt that stays is about the one
   that is seen to have been. */
/* strange: a standby that sees anything but its own last write has led nothing since: if that comes back, it proves nothing. */
inline strange(i) {
#ifndef DROP_S5_SEEN
	if
	:: phase[i] == standby && write[SEEN(i)] != write[WROTE(i)] -> write[WROTE(i)] = 0; acq[WROTE(i)] = 0
	:: else
	fi
#else
	skip
#endif
}

/* seenApplied: a holder sees its last renewal, just as it was written. So that was applied, although its reply was lost. */
#define seenApplied(i) (runs(i) && !overtaken[i] && exists[SEEN(i)] && write[DOUBT(i)] != 0 && write[SEEN(i)] == write[DOUBT(i)] && \
	holder[SEEN(i)] == NAME(i))

inline settle(i) {
#ifdef DEATHS
	past[i] = past[i] || (acq[BEFORE] != 0 && acq[BEFORE] == acq[FILED(0)] && !(exists[SEEN(i)] && acq[SEEN(i)] == acq[BEFORE]));
	acq[BEFORE] = 0;
#endif
#if defined(STATEDIR) && !defined(DROP_S12_VOID) && !defined(DROP_S12_TIMES)
	/* S12: the proof is about what is seen now. Once anything else was, another may have led: it is no proof any more, to
	   this process or to the next. */
	if
	:: !exists[SEEN(i)] || acq[SEEN(i)] != acq[DEAD(i)] -> acq[DEAD(i)] = 0
	:: else
	fi;
	if
	:: locked(i) && exists[SEEN(i)] && acq[SEEN(i)] != acq[FILED(DIR(i))] -> acq[FILED(DIR(i))] = 0
	:: else
	fi;
#endif
	strange(i);
	overtaken[i] = overtaken[i] || (phase[i] != standby && !owns(i));
#ifndef DROP_S8_SENT
	/* A release that was sent may have been applied, and another may have led since: what is now seen is ours only if it
	   is that release, or another write still in doubt. The code does not have this rule, and goes by overtaken alone. */
	if
	:: (phase[i] == releasing || phase[i] == resigned) && write[DOUBTF(i)] != 0 -> write[WROTE(i)] = 0; acq[WROTE(i)] = 0
	:: else
	fi;
#endif
	if
	:: seenApplied(i) -> /* S1: it counts from when it was first sent, as any of its repetitions may be what was applied */
		write[WROTE(i)] = write[SEEN(i)]; acq[WROTE(i)] = acq[SEEN(i)]; write[KEPT(i)] = 0;
#ifdef DROP_S1_SEEN
		age[i] = 0;
#else
		age[i] = doubted[i];
#endif
		resume(i);
#ifdef REACH
		counted[i] = 1;
#endif
	:: !seenApplied(i) && exists[SEEN(i)] && doubts(i, write[SEEN(i)]) -> write[KEPT(i)] = write[SEEN(i)]
	:: else -> write[KEPT(i)] = 0
	fi;
	write[DOUBT(i)] = 0; write[DOUBTF(i)] = 0; acq[DOUBT(i)] = 0; doubted[i] = 0
}

/* back: S3, an older record takes nothing back that a newer one has promised, nor if the newer one was deleted. */
#if !(KINDS & 64) || defined(DROP_S3_BACK)
#define back(i, r) false
#elif defined(DROP_S3_DELETED)
#define back(i, r) (exists[SEEN(i)] && ver[r] < ver[SEEN(i)] && holder[r] == NOBODY)
#else
#define back(i, r) (ver[r] < ver[SEEN(i)] && holder[r] == NOBODY)
#endif

#ifdef DEATHS
/* stems: an outside hand has put it back, and another one was seen. So it is of another term, by a count of terms that is
   not higher. UNCOUNTED: nobody counts, as candidates of other libraries may not. */
#if defined(UNCOUNTED) || defined(DROP_S13_COUNT)
#define stems(r, i) false
#else
#define stems(r, i) (exists[SEEN(i)] && write[r] == ALIEN && acq[r] != acq[SEEN(i)])
#endif
#endif

/* see takes in record r, unless something newer has been seen. If it was asked for since, it is the API that has gone back. */
inline see(i, r, asked) {
	if
	:: ver[r] < ver[SEEN(i)] && !(asked) -> skip
	:: else ->
		w = ends(i, r);
		n = (write[r] != write[SEEN(i)]); /* renewed */
		if
#ifdef NOTICE
		:: back(i, r) && released(r) && duration[r] > FREEDUR -> patience[i] = (duration[r] > patience[i] -> duration[r] : patience[i])
		:: back(i, r) && !(released(r) && duration[r] > FREEDUR) -> skip
#else
		:: back(i, r) -> skip
#endif
#if defined(NOTICE) && !defined(DROP_S8_NOTICE)
		:: !back(i, r) && released(r) && n -> patience[i] = (duration[r] > FREEDUR -> duration[r] : 0)
#else
		:: !back(i, r) && released(r) && n -> patience[i] = 0
#endif
		:: !back(i, r) && !(released(r) && n) && exists[SEEN(i)] && uid[r] == uid[SEEN(i)] && !n &&
			holder[r] == holder[SEEN(i)] && duration[r] == duration[SEEN(i)] -> skip /* no renewal */
		:: else ->
			if
			:: n && holder[r] == holder[SEEN(i)] -> patience[i] = w
			:: else -> patience[i] = (w > patience[i] -> w : patience[i])
			fi
		fi;
		if
		:: n && holder[r] != NOBODY -> binds[i] = duration[r]
		:: else
		fi;
		if
		:: !overtaken[i] && holder[r] == NAME(i) && (write[r] == write[WROTE(i)] || doubts(i, write[r])) -> patience[i] = 0 /* nobody waits for himself */
		:: else
		fi;
		n = (ver[r] != ver[SEEN(i)] || !exists[SEEN(i)]);
#ifdef DEATHS
		came[i] = ver[r] < ver[SEEN(i)] || stems(r, i) || (came[i] && acq[r] == acq[SEEN(i)]);
		acq[BEFORE] = (exists[SEEN(i)] && n -> acq[SEEN(i)] : 0);
#endif
		copy(r, SEEN(i));
		looked[i] = 1; stale[i] = 0; blind[i] = 0;
		if
		:: n -> settle(i)
		:: else
		fi
	fi
}

/* gone takes in that the Lease is missing, by a watch event of version v or by an answer (v = 0). S6: it still binds. */
inline gone(i, v) {
	if
	:: v != 0 && v < ver[SEEN(i)] -> skip
	:: else ->
#ifdef DROP_S6
		patience[i] = 0;
#else
		if
		:: v == 0 && exists[SEEN(i)] ->
			w = (binds[i] != 0 -> binds[i] : LD(i));
			patience[i] = (w > patience[i] -> w : patience[i])
		:: else
		fi;
#endif
		n = (exists[SEEN(i)] || v > ver[SEEN(i)] || !looked[i]);
#ifdef DEATHS
		came[i] = 0;
		acq[BEFORE] = (exists[SEEN(i)] && n -> acq[SEEN(i)] : 0);
#endif
		exists[SEEN(i)] = 0; uid[SEEN(i)] = 0;
		ver[SEEN(i)] = (v > ver[SEEN(i)] -> v : ver[SEEN(i)]);
		looked[i] = 1; stale[i] = 0;
		if
		:: n -> settle(i)
		:: else
		fi
	fi
}

/* ---- What a candidate does ---- */

/* send starts a write: on the record as seen, or a POST if there is none. A PUT on what is not the newest record can only
   end in a conflict, so it does at once. A retry repeats the write that it retries. */
#ifdef DROP_S4
#define hopeless(i) false
#else
#define hopeless(i) (exists[SEEN(i)] && (ver[SEEN(i)] != ver[API] || uid[SEEN(i)] != uid[API]))
#endif
inline send(i, kind) {
#ifdef DROP_S1_LAST
	doubted[i] = 0; /* a write that is seen counts from its last sending */
#endif
	if
	:: hopeless(i) -> stale[i] = 1
	:: else ->
		call[i] = kind; done[i] = 0; called[i] = 0;
		post[i] = !exists[SEEN(i)];
		if
		:: kind == free || kind == leave ->
			if
			:: write[DOUBTF(i)] == 0 -> write[DOUBTF(i)] = FRESH
			:: else
			fi;
			write[CALLED(i)] = write[DOUBTF(i)]; acq[CALLED(i)] = acq[WROTE(i)]
		:: else ->
			if
			:: write[DOUBT(i)] == 0 -> write[DOUBT(i)] = FRESH
			:: else
			fi;
			write[CALLED(i)] = write[DOUBT(i)];
			acq[CALLED(i)] = (kind == renew -> acq[WROTE(i)] : (write[KEPT(i)] != 0 && write[SEEN(i)] == write[KEPT(i)] -> acq[SEEN(i)] : (acq[DOUBT(i)] != 0 -> acq[DOUBT(i)] : FRESH)));
			acq[DOUBT(i)] = (kind == take -> acq[CALLED(i)] : 0);
			if
			:: kind == take && locked(i) && files(i) && !DIED ->
#ifdef DEATHS
				if
				:: acq[FILED(0)] != acq[CALLED(i)] -> past[0] = 0; past[1] = 0 /* they are about this one */
				:: else
				fi;
#endif
				acq[FILED(DIR(i))] = acq[CALLED(i)]
			:: else
			fi
		fi;
		canon()
	fi
}

inline becomeGhost(i) {
	ghost[i] = call[i]; gpost[i] = post[i]; write[GHOST(i)] = write[CALLED(i)]; acq[GHOST(i)] = acq[CALLED(i)]
}

/* watch waits for the next event, on a new watch if the last has ended. That begins with the Lease as it is, and tells
   nothing of a deletion before. */
inline watch(i) {
	news[i] = nothing; clear(NEWS(i));
	if
	:: cut[i] ->
		cut[i] = 0;
		stale[i] = stale[i] || (phase[i] == standby && looked[i]);
		if
		:: exists[API] -> news[i] = changed; copy(API, NEWS(i))
		:: else
		fi
	:: else
	fi
}

inline forget(i) {
	write[WROTE(i)] = 0; write[KEPT(i)] = 0; write[DOUBT(i)] = 0; write[DOUBTF(i)] = 0; age[i] = 0; doubted[i] = 0; acq[WROTE(i)] = 0; acq[DOUBT(i)] = 0; overtaken[i] = 0
#ifdef SUSPEND
	; suspended[i] = 0; over[i] = 0; succeeded[i] = 0
#endif
}

/* crash: the process dies, its callback with it, and another starts in its place that knows nothing. */
inline crash(i) {
#ifdef NOTICE
	left[i] = 0;
#endif
#ifdef DEATHS
	died = 1; past[i] = 0; came[i] = 0;
#endif
	ignore(i);
	lock[DIR(i)] = (lock[DIR(i)] == 1 + i -> 0 : lock[DIR(i)]); acq[DEAD(i)] = 0;
	hangUp(i); forget(i);
	phase[i] = standby; looked[i] = 0; stale[i] = 0; binds[i] = 0; patience[i] = 0;
	clear(SEEN(i)); cut[i] = 1; watch(i);
	blind[i] = born && !exists[API];
	canon()
}

inline start(i) {
	phase[i] = running;
	printf("%d: LEADS\n", i);
#ifdef REACH
	led[i] = 1;
#endif
#ifdef SUSPEND
	suspended[i] = 0; over[i] = 0; succeeded[i] = 0; succeeded[1 - i] = runs(1 - i);
#endif
	assert(!valid(1 - i)) /* never two */
}

/* applied takes in that a write, sent since ago, was applied. S1: authority counts from then, however late the reply. */
inline applied(i, kind, isPost, by, r, since) {
	j = doubts(i, by); /* nothing newer was seen since it was sent */
	if
#ifndef DROP_S6_POST
	/* S6: while the POST was on its way something else was seen (see settle). Another may lead by it: this is no win. */
	:: kind == take && isPost && !doubts(i, by) -> forget(i)
#endif
#if (KINDS & 64) && !defined(DROP_S6_PUT)
	/* So may another by a record that was undone, if this is a PUT that fits again. */
	:: kind == take && !isPost && !doubts(i, by) -> forget(i)
	:: kind != take && overtaken[i] -> skip
#endif
	:: else ->
		write[WROTE(i)] = write[r]; acq[WROTE(i)] = acq[r]; acq[DOUBT(i)] = 0;
		write[KEPT(i)] = 0; write[DOUBT(i)] = 0; write[DOUBTF(i)] = 0; doubted[i] = 0;
#ifdef DROP_S1
		age[i] = 0;
#else
		age[i] = (phase[i] == releasing || kind == leave -> 0 : since);
#endif
		if
		:: kind == renew -> resume(i)
		:: else
		fi;
#ifdef REACH
		putback = putback || (kind == renew && isPost);
#endif
	fi;
	see(i, r, j);
	strange(i);
	if
	:: phase[i] == standby && write[WROTE(i)] != 0 && kind == take && holder[SEEN(i)] == NAME(i) &&
		exists[SEEN(i)] && write[SEEN(i)] == write[WROTE(i)] && age[i] < RD(i) -> start(i) /* the win */
	:: else
	fi;
}

/* expired: S6, a holder that drains puts nothing back when its own record has expired. Nor does it put a record right that
   others have rewritten: another may have led unseen. The code does not have this second rule. */
#if defined(DROP_S14_DRAINING)
#define expired(i) (over[i] && !exists[SEEN(i)] && age[i] >= LD(i))
#elif defined(SUSPEND)
#define expired(i) (over[i] && !(exists[SEEN(i)] && byOwnWrite(i)) && age[i] >= LD(i))
#else
#define expired(i) false
#endif
#ifndef LINGERS
#define LINGERS 0 /* ticks by which a process that has resigned ends too late */
#endif

proctype Candidate(bit i) {
	do
	/* look: a GET. Late ones are left to the watch, whose events may come as late. */
	:: d_step { call[i] == none && (!looked[i] || stale[i]) ->
		printf("%d: looks\n", i);
		if
		:: exists[API] -> see(i, API, true)
		:: else -> gone(i, 0)
		fi;
#ifdef DROP_S14_KNOWN
		/* valid again as soon as the record is seen to be ours still */
		if
		:: runs(i) && suspended[i] && exists[SEEN(i)] && owns(i) -> suspended[i] = 0; assert(!valid(i) || !(valid(1 - i) || succeeded[i]))
		:: else
		fi;
#endif
		canon() }

	/* campaign: take what is free or has expired (S3, S6), or make sure of a win in doubt (S5). */
	:: d_step { phase[i] == standby && call[i] == none && looked[i] && !stale[i] &&
		(patience[i] == 0 || proven(i) || (exists[SEEN(i)] && holder[SEEN(i)] == NAME(i) && byOwnWrite(i))
#ifdef DROP_S5_DOUBT
		/* A win in doubt is known by times that were cut. Two of one name that wrote in one millisecond look alike then. */
		|| (exists[SEEN(i)] && holder[SEEN(i)] == NAME(i) && acq[SEEN(i)] == 0)
#endif
		) &&
		!outside(i, take, !exists[SEEN(i)]) ->
		printf("%d: takes\n", i);
#ifdef REACH
		proved = proved || (proven(i) && patience[i] > 0);
		adopted = adopted || (exists[SEEN(i)] && write[SEEN(i)] == write[KEPT(i)]);
#endif
		send(i, take) }
#ifdef DROP_S5_ADOPT
	/* A win in doubt is led on as soon as it is seen. */
	:: d_step { phase[i] == standby && looked[i] && !stale[i] && exists[SEEN(i)] && holder[SEEN(i)] == NAME(i) &&
		doubts(i, write[SEEN(i)]) ->
		write[WROTE(i)] = write[SEEN(i)]; age[i] = 0;
		start(i); canon() }
#endif

#ifdef DEATHS
	/* S13: the kubelet says that the container of the process that has left the mark has ended. */
	:: d_step {
#ifndef DROP_S13_ENDED
		died &&
#endif
		acq[DEAD(i)] != acq[FILED(0)] ->
		printf("%d: is told that 0 has died\n", i);
		acq[DEAD(i)] = acq[FILED(0)]; canon() }
#endif
#ifdef STATEDIR
	/* S12: the kernel has let go of the lock, so whoever wrote the file is dead. Or the file is torn. */
	:: d_step { files(i) && phase[i] == standby && call[i] == none && !looked[i] &&
#ifndef DROP_S12_LOCK
		lock[DIR(i)] == 0 &&
#endif
		acq[FILED(DIR(i))] != acq[DEAD(i)] ->
		printf("%d: gets the lock, and reads the file\n", i);
		lock[DIR(i)] = 1 + i; acq[DEAD(i)] = acq[FILED(DIR(i))]; canon() }
	:: d_step { files(i) && lock[DIR(i)] == 0 && !looked[i] ->
		printf("%d: gets the lock, and finds no proof\n", i);
		lock[DIR(i)] = 1 + i; canon() }
#endif

	/* hold: renew while the record is ours, also while the callback drains (S9). The callback may be told to stop at any
	   time, and it is at the deadline at the latest; so leading and draining are one phase here, which ends (see Clock)
	   by the deadline and the stop budget. */
	:: d_step { runs(i) && call[i] == none && !stale[i] && owns(i) && !expired(i) ->
		printf("%d: renews\n", i);
		send(i, renew) }
	:: d_step { runs(i) ->
		printf("%d: HAS RETURNED\n", i);
		phase[i] = releasing; age[i] = 0; doubted[i] = 0
#ifdef SUSPEND
		; suspended[i] = 0; over[i] = 0; succeeded[i] = 0
#endif
		}
#ifdef SUSPEND
	/* S14: the callback was asked to stop before its authority ended. So that was lost, and not suspended. Which of the two
	   is decided here, later: until then, one that was lost may do all that one that is suspended may. */
	:: d_step { runs(i) && suspended[i] ->
		printf("%d: had been asked to stop: LOST\n", i);
		suspended[i] = 0; over[i] = 1; succeeded[i] = 0 }
#endif
#ifdef NOTICE
	/* S8: the process is about to end itself, and resigns. It is gone before the notice has passed. */
	:: d_step { runs(i) ->
		printf("%d: RESIGNS\n", i);
		phase[i] = resigned; left[i] = NOTICE - 1 + LINGERS; doubted[i] = 0 }
	:: d_step { phase[i] == resigned && call[i] == none && !stale[i] && exists[SEEN(i)] && !released(SEEN(i)) && owns(i) ->
		printf("%d: releases with notice\n", i);
		send(i, leave) }
	:: d_step { phase[i] == resigned ->
		printf("%d: ENDS, and another process starts\n", i);
#ifdef REACH
		noticed = 1;
#endif
		crash(i) }
	:: d_step { phase[i] == resigned && under(i) && ghost[i] == none ->
		printf("%d: ENDS, its request on its way, and another process starts\n", i);
		becomeGhost(i); crash(i) }
#endif

	/* letGo: S8, release after the callback has returned and only what is ours. */
	:: d_step { call[i] == none && !stale[i] && exists[SEEN(i)] && !released(SEEN(i)) &&
#ifdef DROP_S8_OURS
		phase[i] == releasing ->
#elif defined(DROP_S8)
		(phase[i] == releasing || runs(i)) && owns(i) ->
#else
		phase[i] == releasing && owns(i) ->
#endif
		printf("%d: releases\n", i);
		send(i, free) }
	:: d_step { phase[i] == releasing && call[i] == none ->
		printf("%d: stands by again\n", i);
		phase[i] = standby; forget(i); canon() }

	/* applied: S1, authority counts from when the write was sent, however late the reply. */
	:: d_step { call[i] != none && done[i] ->
		printf("%d: hears that it was applied\n", i);
		applied(i, call[i], post[i], write[CALLED(i)], REPLY(i), called[i]);
		ignore(i);
		hangUp(i); canon() }
#ifdef TWO
	/* L3, of candidate 0, by symmetry: a write is overdue, and another may be sent at its side. Whichever is answered first counts. */
	:: d_step { i == 0 && under(i) && called[i] > 0 && ghost[i] == none && older[i] == none ->
		printf("%d: waits for its write no longer than for the next\n", i);
		older[i] = call[i]; opost[i] = post[i]; oage[i] = called[i];
		becomeGhost(i); hangUp(i); canon() }
	:: d_step { odone[i] ->
		printf("%d: hears that the older write was applied\n", i);
#ifdef DROP_L3
		oage[i] = (call[i] != none -> called[i] : oage[i]);
#endif
		applied(i, older[i], opost[i], write[OVERDUE(i)], OVERDUE(i), oage[i]);
#ifdef REACH
		late = 1;
#endif
		ignore(i);
		if
		:: under(i) && ghost[i] == none -> becomeGhost(i)
		:: else
		fi;
		hangUp(i); canon() }
	:: d_step { older[i] != none ->
		printf("%d: gives the older write up\n", i);
		ignore(i); stale[i] = 1; canon() }
#endif
	/* A fault: a write is given up. It is lost, or its reply is, or it is still on its way. What became of it? Look. */
	:: d_step { FAULT(REQUESTS) && call[i] != none ->
		printf("%d: gives up a request\n", i);
		faults--; stale[i] = 1; hangUp(i); canon() }
	:: d_step { FAULT(REQUESTS) && under(i) && ghost[i] == none ->
		printf("%d: gives up a request that is on its way\n", i);
		faults--; stale[i] = 1; becomeGhost(i); hangUp(i); canon() }

	/* A fault: the process crashes and starts again; a write that it had sent is lost, or goes on. */
	:: d_step { FAULT(CRASHES) && files(i) && !DIED && looked[i] ->
		printf("%d: crashes and starts again\n", i);
		faults--; crash(i) }
	:: d_step { FAULT(CRASHES) && files(i) && !DIED && looked[i] && under(i) && ghost[i] == none ->
		printf("%d: crashes and starts again, its request on its way\n", i);
		faults--; becomeGhost(i); crash(i) }

	/* The watch: events arrive at any time. */
#if KINDS & 64
	:: d_step { news[i] == nothing && cut[i] ->
		printf("%d: opens its watch anew\n", i);
		watch(i); canon() }
#endif
	:: d_step { news[i] == changed ->
		printf("%d: is told of a change\n", i);
		see(i, NEWS(i), false); watch(i); canon() }
	:: d_step { news[i] == deleted ->
		printf("%d: is told of the deletion\n", i);
		gone(i, ver[NEWS(i)]); watch(i); canon() }
	od
}

/* ---- Time ---- */

/* may: what has to have happened before time goes on. The callback has returned within the stop budget of the deadline,
   at which it is told (S2), and a request was given up. That costs a fault; with none left, replies come in time. */
#ifdef SUSPEND
#define overdue(i) false
#elif defined(NOTICE)
#define overdue(i) ((inside(i) && age[i] >= RD(i) + STOP) || (phase[i] == resigned && left[i] == 0))
#else
#define overdue(i) (runs(i) && age[i] >= RD(i) + STOP)
#endif
#define may(i) (!overdue(i) && !(call[i] != none && called[i] >= PATIENT) && !(older[i] != none && oage[i] > PATIENT))

/* S14: a term may be suspended for ever, so ages are counted up to LeaseDuration only. */
#ifdef SUSPEND
#define within(t, i) (t < LD(i))
#else
#define within(t, i) true
#endif
inline tick(i) {
	if
	:: runs(i) && write[DOUBT(i)] != 0 && within(doubted[i], i) -> doubted[i]++
	:: else
	fi;
	if
	:: write[WROTE(i)] != 0 && phase[i] != releasing && (phase[i] != standby || age[i] < RD(i)) && within(age[i], i) -> age[i]++
	:: else
	fi;
#ifdef SUSPEND
	if
	:: runs(i) && age[i] >= RD(i) && !over[i] && !suspended[i] -> suspended[i] = exists[SEEN(i)]; over[i] = !exists[SEEN(i)]
	:: else
	fi;
#endif
#ifdef NOTICE
	if
	:: left[i] > 0 -> left[i]--
	:: else
	fi;
#endif
	if
	:: patience[i] > 0 -> patience[i]--
	:: else
	fi;
	if
	:: call[i] != none -> called[i]++
	:: else
	fi;
	if
	:: older[i] != none -> oage[i]++
	:: else
	fi
}

proctype Clock() {
	do
	:: d_step { may(0) && may(1) ->
		printf("CLOCK: ticks\n");
		tick(0); tick(1);
		if
		:: even < DRIFT -> even++
		:: else
		fi }
#ifndef NO_DRIFT
	:: d_step { may(0) && may(1) && even >= DRIFT ->
		printf("CLOCK: ticks, but that of 0 does not\n");
		tick(1); even = 0 }
#endif
#ifdef REACH
	:: d_step { reached -> assert(false) }
#endif
	od
}

init {
	atomic {
		run Candidate(0); run Candidate(1);
		run Server(0); run Server(1);
		run Hand(); run Clock()
	}
}
