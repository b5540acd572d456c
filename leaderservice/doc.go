// Package leaderservice makes a Service send its requests to the leader.
//
// The Service has no selector. The leader writes its only EndpointSlice: with its own address when its term begins, and
// without an address before it releases the Lease.
//
//	service, err := leaderservice.New(client.DiscoveryV1(), leaderservice.Options{
//		Namespace: "shop",
//		Service:   "orders",
//		Address:   os.Getenv("POD_IP"),
//		Ports:     []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](8080)}},
//	})
//	...
//	el, err := elector.NewForConfig(cfg, elector.Options{Namespace: "shop", Name: "orders", Run: service.Run(work)})
//	...
//	http.ListenAndServe(":8080", service.Forward(el.Leader, handler))
//
// Service.Run goes around Options.Run. Service.Forward, which is optional, goes around the program's own handler: a
// request that reaches a standby, by an old route or because clients connect to any replica, is passed on to the leader.
//
// # What happens when
//
//	term begins               the EndpointSlice is read and written: this replica's address
//	ctx of the callback ends  the EndpointSlice is emptied at once, while work drains
//	work has returned         requests under way may finish, for Grace; then the Lease is released
//	term is lost              nothing is written; requests under way end at once
//	crash                     the address stays until the next leader's first write replaces it
//	somebody edits it         the leader puts it right within ten seconds, and standbys read it anew ten seconds later
//
// # No late writes
//
// Each write is made by a term that is valid at that moment, and names the resourceVersion that it replaces. It carries
// the term's token in an annotation, and a term does not write over a larger one. So a past leader that was frozen or
// cut off cannot undo what the next leader wrote: its late request is a conflict, and when it reads again it finds a
// larger token.
//
// A past leader may leave its own address behind, until the first write of the next leader: after a crash or a
// partition, LeaseDuration after its last renewal at most. Until then the Service sends requests to a replica that does
// not lead. So a Service does not protect data: the nodes learn of a change later still, and open connections stay
// open. Forward checks the term at each request. For writes to other systems see elector.Term.Token.
//
// # Requests at a standby
//
// Forward looks the leader's address up once for all requests, and again as its comment says. Requests that wait share
// one goroutine, which wakes them when the leader is known. While a leader cannot be reached, one of them tries it
// from time to time. A request ends with its own context, whatever the API does.
//
// What is passed on carries the header Elector-Forwarded-By, with the namespace, name and UID of the EndpointSlice. A
// replica that gets it and does not lead answers 503 with the same value in Elector-Not-Leader. Forward takes both off,
// at the other end of the hop, and believes no other values: they are a client's or another Service's. The README has
// what Forward costs.
//
// # Permissions
//
// The verbs get, create and update on this EndpointSlice, in discovery.k8s.io. RBAC cannot limit create to a name. It
// is not needed if you create the EndpointSlice, empty. The ClusterRoles edit and admin do not include writing
// EndpointSlices, so a cluster's administrator has to grant this.
package leaderservice
