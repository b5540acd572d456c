package leaderservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/elector-go/elector"
	"github.com/elector-go/elector/electortest"
)

// A shop is replicas with a Service, an API server, and virtual time: 15/10/2 s, 4 ms for a round trip.
type shop struct {
	*testing.T
	api      *electortest.Server
	slices   *store
	net      *network
	replicas []*replica
}

type replica struct {
	name    string
	address string
	el      *elector.Elector
	service *Service
	leases  *electortest.Client
	slices  *client
	handler http.Handler
	log     *logLines
	stop    context.CancelFunc
	done    chan struct{}
	err     error // of Run
}

func inShop(t *testing.T, f func(s *shop)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := &shop{T: t, api: electortest.NewServer(), slices: &store{}, net: newNetwork(t)}
		defer func() {
			s.api.Close()
			s.net.close()
			for _, r := range s.replicas {
				r.slices.intercept(func(string) error { return errors.New("the test is over") })
				r.stop()
				<-r.done
			}
			time.Sleep(requestLimit + time.Second) // what is under way ends
		}()
		f(s)
	})
}

func options(address string) Options {
	return Options{
		Namespace: "shop", Service: "orders", Address: address, Pod: "pod-of-" + address, Node: "node-1",
		Ports: []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}},
	}
}

func untilDone(ctx context.Context) error { <-ctx.Done(); return nil }

// join starts a replica whose work is as given.
func (s *shop) join(work func(context.Context) error, change ...func(*Options)) *replica {
	s.Helper()
	n := len(s.replicas) + 1
	r := &replica{
		name: fmt.Sprintf("pod-%d", n), address: fmt.Sprintf("10.0.0.%d", n), log: &logLines{},
		leases: s.api.Client(fmt.Sprint("pod-", n)), slices: &client{store: s.slices}, done: make(chan struct{}),
	}
	r.leases.SetLatency(4 * time.Millisecond)
	opts := options(r.address)
	for _, c := range change {
		c(&opts)
	}
	var err error
	r.service, err = New(r.slices, opts)
	require.NoError(s, err)
	r.el, err = elector.New(r.leases.CoordinationV1(), elector.Options{
		Namespace: "shop", Name: "orders", Identity: r.name, Run: r.service.Run(work), OnOverrun: func(elector.Term) {},
	})
	require.NoError(s, err)
	ctx, cancel := context.WithCancel(logr.NewContext(s.Context(), funcr.New(r.log.add, funcr.Options{})))
	r.stop = cancel
	go func() { r.err = r.el.Run(ctx); close(r.done) }()
	s.replicas = append(s.replicas, r)
	return r
}

// twoReplicas are a leader whose term is a while old, and a standby.
func (s *shop) twoReplicas() (leader, standby *replica) {
	s.Helper()
	leader = s.join(untilDone)
	time.Sleep(5 * time.Second)
	standby = s.join(untilDone)
	time.Sleep(25 * time.Second)
	require.True(s, leader.el.IsLeader())
	require.Equal(s, leader.address, s.slices.leads())
	return leader, standby
}

// holder is who holds the Lease.
func (s *shop) holder() string {
	s.Helper()
	l, err := s.api.Client("kubectl").CoordinationV1().Leases("shop").Get(s.Context(), "orders", metav1.GetOptions{})
	require.NoError(s, err)
	return *l.Spec.HolderIdentity
}

func TestTheLeaderIsInTheEndpointSliceWithEverythingThatRoutesNeed(t *testing.T) {
	inShop(t, func(s *shop) {
		s.join(untilDone)
		time.Sleep(time.Second)
		slice := s.slices.now()
		require.Equal(s, map[string]string{
			"kubernetes.io/service-name":             "orders",
			"endpointslice.kubernetes.io/managed-by": "leaderservice.elector-go.github.io",
		}, slice.Labels)
		require.Equal(s, discoveryv1.AddressTypeIPv4, slice.AddressType)
		require.Equal(s, "TCP", string(*slice.Ports[0].Protocol))
		require.Equal(s, int32(8080), *slice.Ports[0].Port)
		require.Len(s, slice.Endpoints, 1)
		e := slice.Endpoints[0]
		require.Equal(s, []string{"10.0.0.1"}, e.Addresses)
		require.Equal(s, "node-1", *e.NodeName)
		require.Equal(s, "shop/pod-of-10.0.0.1", e.TargetRef.Namespace+"/"+e.TargetRef.Name)
		require.True(s, *e.Conditions.Ready && *e.Conditions.Serving && !*e.Conditions.Terminating)
	})
}

func TestItIsEmptiedBeforeTheLeaseIsReleasedAndWhileWorkDrains(t *testing.T) {
	inShop(t, func(s *shop) {
		leader := s.join(func(ctx context.Context) error { <-ctx.Done(); time.Sleep(time.Minute); return nil })
		time.Sleep(20 * time.Second)
		leader.stop()
		time.Sleep(time.Second)
		require.Empty(s, s.slices.leads())
		require.Equal(s, leader.name, s.holder(), "work drains, and the Lease is kept")
		<-leader.done
		require.Empty(s, s.holder())
	})
}

// The write that empties it is slow; the Lease waits for it.
func TestTheLeaseIsNotReleasedWhileTheEndpointSliceIsBeingEmptied(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoReplicas()
		leader.slices.intercept(func(string) error { time.Sleep(1500 * time.Millisecond); return nil })
		leader.stop()
		time.Sleep(time.Second)
		require.Equal(s, leader.name, s.holder())
		<-leader.done
		time.Sleep(time.Second)
		require.Equal(s, standby.address, s.slices.leads())
		require.Equal(s, []string{"", leader.address, "", standby.address}, s.slices.addresses())
	})
}

func TestWhenTheApiIsInTroubleEmptyingIsTriedForFiveSecondsOnly(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, _ := s.twoReplicas()
		leader.slices.intercept(func(string) error { return electortest.Unavailable() })
		begin := time.Now()
		leader.stop()
		<-leader.done
		require.InDelta(s, withdrawLimit.Seconds(), time.Since(begin).Seconds(), 1)
		require.Contains(s, leader.log.all(), "until the next leader's first write")
	})
}

// The API is out of reach altogether: what is left of the term is all the time there is.
func TestEmptyingItEndsWithTheTerm(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, _ := s.twoReplicas()
		leader.leases.Partition(electortest.Both)
		over := leader.el.Status().Term.ValidUntil()
		leader.slices.intercept(func(string) error { time.Sleep(requestLimit); return electortest.Unavailable() })
		time.Sleep(time.Until(over) - 3*time.Second)
		leader.stop()
		time.Sleep(time.Until(over) + requestLimit + time.Second)
		require.Contains(s, leader.log.all(), errOver.Error())
	})
}

func TestACrashedLeadersAddressIsReplacedByTheNextOnesFirstWrite(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoReplicas()
		leader.leases.Partition(electortest.Both)
		leader.slices.intercept(lost)
		time.Sleep(20 * time.Second)
		require.True(s, standby.el.IsLeader())
		require.Equal(s, []string{"", leader.address, standby.address}, s.slices.addresses())
	})
}

func TestALostTermWritesNothing(t *testing.T) {
	inShop(t, func(s *shop) {
		leader := s.join(untilDone)
		time.Sleep(20 * time.Second)
		leader.leases.Partition(electortest.Both) // from the Leases only: the EndpointSlice could be written
		before := s.slices.writes()
		time.Sleep(time.Until(leader.el.Status().Term.ValidUntil()) + time.Second)
		require.False(s, leader.el.IsLeader())
		require.Equal(s, before, s.slices.writes())
		require.Equal(s, leader.address, s.slices.leads(), "as the package says")
	})
}

// A write that is under way when the leader is cut off arrives long after its successor's.
func TestALateWriteOfAPastLeaderIsAConflictAndThenItLeavesTheSuccessorsAlone(t *testing.T) {
	inShop(t, func(s *shop) {
		leader, standby := s.twoReplicas()
		leader.leases.Partition(electortest.Both)
		arrives := time.Now().Add(30 * time.Second)
		var held atomic.Bool
		leader.slices.intercept(func(verb string) error {
			if verb == "update" {
				held.Store(true)
				time.Sleep(time.Until(arrives))
			}
			return nil
		})
		s.slices.edit(func(e *discoveryv1.EndpointSlice) { e.Endpoints = nil }) // so that it has something to write
		time.Sleep(time.Until(arrives) + 5*time.Second)
		require.True(s, held.Load())
		require.Equal(s, standby.address, s.slices.leads())
		require.Equal(s, []string{"", leader.address, "", standby.address}, s.slices.addresses())
	})
}

// Here the past leader does not know that its term is over: the rule of the token alone stands between it and the
// write.
func TestATermDoesNotWriteOverALargerToken(t *testing.T) {
	inShop(t, func(s *shop) {
		leader := s.join(untilDone)
		time.Sleep(time.Second)
		later := fmt.Sprintf("%s/%d", s.slices.now().UID, leader.el.Status().Term.Token()+1)
		s.slices.edit(func(e *discoveryv1.EndpointSlice) {
			e.Annotations[termAnnotation] = later
			e.Endpoints[0].Addresses[0] = "10.0.0.9"
		})
		time.Sleep(time.Minute)
		require.True(s, leader.el.IsLeader())
		require.Equal(s, "10.0.0.9", s.slices.leads())
		require.Contains(s, leader.log.all(), "delete the EndpointSlice")
		leader.stop()
		<-leader.done
		require.Equal(s, "10.0.0.9", s.slices.leads(), "nor does it empty it")
	})
}

func TestATokenOfAnotherEndpointSliceBindsNobody(t *testing.T) {
	inShop(t, func(s *shop) {
		s.slices.put(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
			UID: "restored", Annotations: map[string]string{termAnnotation: "of-the-backup/99999999"},
		}})
		leader := s.join(untilDone)
		time.Sleep(time.Second)
		require.Equal(s, leader.address, s.slices.leads())
	})
}

func TestWhatSomebodyEditsIsPutRightAndWhatTheyAddIsKept(t *testing.T) {
	inShop(t, func(s *shop) {
		leader := s.join(untilDone)
		time.Sleep(20 * time.Second)
		quiet := s.slices.writes()
		time.Sleep(10 * time.Minute)
		require.Equal(s, quiet, s.slices.writes(), "a check writes nothing")
		s.slices.edit(func(e *discoveryv1.EndpointSlice) {
			e.Endpoints[0].Addresses[0] = "10.0.0.9"
			e.Labels = map[string]string{"team": "orders"}
		})
		time.Sleep(checkInterval + time.Second)
		require.Equal(s, leader.address, s.slices.leads())
		require.Equal(s, "orders", s.slices.now().Labels["team"])
		require.Equal(s, "orders", s.slices.now().Labels[discoveryv1.LabelServiceName])
		s.slices.edit(nil)
		time.Sleep(checkInterval + time.Second)
		require.Equal(s, leader.address, s.slices.leads(), "it was deleted, and is made anew")
	})
}

func TestARefusedWriteDoesNotStopWorkAndNamesTheRightThatIsMissing(t *testing.T) {
	for _, verb := range []string{"get", "create", "update"} {
		t.Run(verb, func(t *testing.T) {
			inShop(t, func(s *shop) {
				forbid := func(v string) error {
					if v == verb {
						return apierrors.NewForbidden(resource, "orders-leader", errors.New("no"))
					}
					return nil
				}
				leader := s.join(untilDone)
				leader.slices.intercept(forbid)
				time.Sleep(time.Minute)
				require.True(s, leader.el.IsLeader())
				require.Equal(s, 1, leader.log.count(fmt.Sprintf("grant the verb \\\"%s\\\"", verb)), "%s", leader.log.all())
				leader.slices.intercept(nil)
				time.Sleep(5 * time.Second)
				require.Equal(s, leader.address, s.slices.leads())
			})
		})
	}
}

func TestItIsEmptiedWhenWorkReturnsByItselfOrEndsItsGoroutine(t *testing.T) {
	failed := errors.New("failed")
	for what, end := range map[string]func() error{
		"return": func() error { return failed },
		"goexit": func() error { runtime.Goexit(); return nil },
	} {
		t.Run(what, func(t *testing.T) {
			inShop(t, func(s *shop) {
				r := s.join(func(context.Context) error { time.Sleep(5 * time.Second); return end() })
				time.Sleep(3 * time.Second)
				require.Equal(s, r.address, s.slices.leads())
				<-r.done
				require.Error(s, r.err)
				if what == "return" {
					require.ErrorIs(s, r.err, failed)
				}
				require.Empty(s, s.slices.leads())
			})
		})
	}
}

func TestWithoutATermRunSaysHowToCallIt(t *testing.T) {
	service, err := New(&client{store: &store{}}, options("10.0.0.1"))
	require.NoError(t, err)
	err = service.Run(untilDone)(t.Context())
	require.ErrorContains(t, err, "elector.Options.Run")
}

func TestAllMistakesAreReportedAtOnceEachWithItsField(t *testing.T) {
	_, err := New(nil, Options{Namespace: "Shop", Service: "1", Name: "X", Address: "127.0.0.1", Scheme: "ftp",
		Ports: []discoveryv1.EndpointPort{{}, {Port: ptr.To[int32](70000)}}})
	for _, field := range []string{"client", "Namespace", "Service", "Name", "Address", "Scheme", "Ports[0].Port", "Ports[1].Port"} {
		require.ErrorContains(t, err, field+":")
	}
	_, err = New(&client{}, Options{Namespace: "shop", Service: "orders"})
	require.ErrorContains(t, err, "status.podIP")
	require.ErrorContains(t, err, "at least one")
	require.NotContains(t, err.Error(), "Options.Name:", "that has a default")
}

func TestAnAddressIsWrittenAsTheApiKeepsIt(t *testing.T) {
	for given, want := range map[string]string{"10.0.0.1": "10.0.0.1", "::ffff:10.0.0.1": "10.0.0.1", "FD00::0:1": "fd00::1"} {
		service, err := New(&client{}, options(given))
		require.NoError(t, err)
		require.Equal(t, want, service.opts.Address)
	}
	require.Equal(t, discoveryv1.AddressTypeIPv6, addressType("fd00::1"))
	require.Equal(t, discoveryv1.AddressTypeIPv4, addressType("10.0.0.1"))
}
