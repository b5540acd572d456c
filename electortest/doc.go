// Package electortest is an in-memory API server for Leases, for tests of programs that elect a leader.
//
// A [Server] answers as a kube-apiserver does: stale writes are conflicts, invalid Leases are refused, resourceVersions
// grow through deletion, watches begin at the version that is asked for and close by themselves. The tests in package
// conformance pass on it and on a real kube-apiserver. (Client-go's fake clientset accepts every write, whatever its
// resourceVersion, so it cannot show that one replica at a time leads.)
//
// Each replica gets a [Client] of its own, usable wherever a kubernetes.Interface is wanted. Its link to the server
// can be slowed ([Client.SetLatency]), cut ([Client.Partition]) and tampered with, request by request
// ([Client.Intercept]); its watches can be refused, closed and silenced.
//
// It works in real time, and inside testing/synctest, where a minute takes a millisecond:
//
//	func TestTheOtherReplicaTakesOver(t *testing.T) {
//		synctest.Test(t, func(t *testing.T) {
//			server := electortest.NewServer() // in the bubble, because its channels must belong to it
//			defer server.Close()              // ends watches and hung calls, so that the bubble can end
//			ctx, cancel := context.WithCancel(t.Context())
//			var replicas sync.WaitGroup
//			defer replicas.Wait()
//			defer cancel()
//			for _, name := range []string{"a", "b"} {
//				client := server.Client(name)
//				client.SetLatency(4 * time.Millisecond)
//				replicas.Go(func() { runMyOperator(ctx, client, name) })
//			}
//			time.Sleep(time.Minute)
//			server.Client("a").Partition(electortest.Both)
//			time.Sleep(time.Minute)
//			// now b leads, and a has noticed that it does not
//			server.Client("a").Partition(electortest.NoPartition) // heals it
//			time.Sleep(time.Minute)
//			// now a stands by
//		})
//	}
//
// A bubble ends when all its goroutines have: cancel what the test has started, and wait for it. Otherwise the test panics
// with "deadlock: main bubble goroutine has exited but blocked goroutines remain", and shows their stacks. A goroutine
// that is blocked in a call of a Client is one whose ctx does not end.
//
// # What is different from a real server
//
//   - Every namespace exists, and every client may do everything, except what [Client.ForbidWatch] and [Fault.Err]
//     refuse.
//   - No managedFields, no server-side apply (405), no finalizers (a delete is immediate), no generateName.
//   - A list ignores limit, continue and resourceVersion; field selectors know metadata.name and metadata.namespace,
//     without "!=". Watches send no bookmarks and refuse sendInitialEvents, as with WatchList off.
//   - A watch can start about a thousand events in the past, counted over all Leases; earlier than that the answer is
//     410.
//   - A client sees each error at once: there is no client-go REST client underneath, which would wait for a
//     Retry-After and try again, and no client-side rate limit.
//   - A watch whose context ends closes its channel without the ERROR event that client-go may put before it.
//   - The older versions of the API group (v1beta1, v1alpha2) are client-go's fakes and do not see these Leases.
package electortest
