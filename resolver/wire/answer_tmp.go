package wire

type Answer struct{}

func Pack(q *Query, r *Reply) (*Answer, error)                 { panic("not yet") }
func ParseAnswer(msg []byte) (*Answer, error)                  { panic("not yet") }
func (a *Answer) Rcode() uint16                                { panic("not yet") }
func (a *Answer) AA() bool                                     { panic("not yet") }
func (a *Answer) AD() bool                                     { panic("not yet") }
func (a *Answer) TC() bool                                     { panic("not yet") }
func (a *Answer) MinTTL() (ttl uint32, ok bool)                { panic("not yet") }
func (a *Answer) NegativeTTL() (ttl uint32, ok bool)           { panic("not yet") }
func (a *Answer) Size() int                                    { panic("not yet") }
func (a *Answer) RRs() []RR                                    { panic("not yet") }
func (a *Answer) EDE() (code uint16, text string)              { panic("not yet") }
func (a *Answer) Matches(q *Query) bool                        { panic("not yet") }
func (a *Answer) Append(dst []byte, q *Query, r Render) []byte { panic("not yet") }
func AppendError(dst []byte, q *Query, rcode uint16, ede uint16, text string) []byte {
	panic("not yet")
}
