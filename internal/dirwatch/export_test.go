package dirwatch

import "time"

// What tests expect has to be heard of: no poll comes to their help.
func init() { pollEvery = time.Hour }
