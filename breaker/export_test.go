package breaker

// OutwardBy is Outward with another choice of proxies: that of the environment
// is made once for each process.
var OutwardBy = outwardBy
