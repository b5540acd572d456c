package figures

import (
	"bytes"
	"fmt"
	"image/color"
	"time"

	xfont "golang.org/x/image/font"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// The picture is 900 pixels wide, as wide as GitHub shows a README. A pixel is ¾ of a point.
const (
	pixel      = vg.Length(0.75)
	width      = 900 * pixel
	margin     = 14 * pixel
	keyHeight  = 30 * pixel
	plotHeight = 282 * pixel
	rowHeight  = 18 * pixel

	// slack is how much wider than here a text may be where another font is shown.
	slack = 1.15
)

// The colours differ in lightness too, for those who see fewer hues.
var (
	paper    = color.White
	ink      = rgb(0x1f2328)
	faint    = rgb(0x59636e)
	hairline = rgb(0xe4e7eb)
	alive    = rgb(0x9aa4b0)
	works    = rgb(0x1f5fa8)
	stopping = rgb(0x8cb8e6)

	overlapping = hue{fill: rgb(0xd11a2f), wash: rgb(0xfbd9dc), inside: paper, outside: rgb(0xd11a2f)}
	leaderless  = hue{fill: rgb(0xf2b134), wash: rgb(0xfdf0d0), inside: ink, outside: rgb(0x8a5300)}
)

func rgb(c uint32) color.Color {
	return color.NRGBA{R: uint8(c >> 16), G: uint8(c >> 8), B: uint8(c), A: 0xff}
}

// A hue marks what went wrong: a box with a caption inside or outside, and a wash behind the lanes.
type hue struct{ fill, wash, inside, outside color.Color }

// A drawing is a scenario, and what each elector did in it.
type drawing struct {
	scenario
	runs map[kind]record
}

// The rows of a plot, from its top down: the events, then for each elector a heading, a lane for each replica, and
// what went wrong.
const (
	panelRows = 1 + replicas + 1
	rows      = 1 + 2*panelRows
)

func panelTop(i int) int { return 1 + i*panelRows }

// row is the middle of a row in the plot's coordinates, which grow upwards.
func row(i int) float64 { return float64(rows-i) - 0.5 }

// picture draws all scenarios, one below the other.
func picture(all []drawing) ([]byte, error) {
	height := 2*margin + keyHeight + vg.Length(len(all))*plotHeight
	svg := vgsvg.New(width, height)
	c := draw.New(svg)
	c.SetColor(paper) // GitHub's dark mode would shine through
	c.Fill(c.Rectangle.Path())
	c = draw.Crop(c, margin, -margin, margin, -margin)
	drawKey(draw.Crop(c, 0, 0, c.Size().Y-keyHeight, 0))
	for i, d := range all {
		top := keyHeight + vg.Length(i)*plotHeight
		d.draw(draw.Crop(c, 0, 0, c.Size().Y-top-plotHeight, -top))
	}
	var out bytes.Buffer
	if _, err := svg.WriteTo(&out); err != nil {
		return nil, err
	}
	return anyFont(out.Bytes()), nil
}

// anyFont names fonts of the same widths as the font that the picture was laid out with, which few browsers have.
func anyFont(svg []byte) []byte {
	return bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans;"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif;"))
}

func (d drawing) draw(c draw.Canvas) {
	const heading = 26 * pixel
	c.FillText(style(14, true, ink, draw.XLeft), vg.Point{X: c.Min.X, Y: c.Max.Y - heading/2}, d.title)
	p := plot.New()
	p.BackgroundColor = nil
	p.X.Min, p.X.Max = d.from.Seconds(), d.until.Seconds()
	p.Y.Min, p.Y.Max = 0, rows
	p.X.Padding, p.Y.Padding = 0, 0
	p.X.LineStyle.Color = hairline
	p.X.Tick.LineStyle.Color = hairline
	p.X.Tick.Label = style(11, false, faint, draw.XCenter)
	p.X.Tick.Label.YAlign = draw.YTop
	p.X.Tick.Marker = plot.ConstantTicks(d.seconds())
	p.Y.LineStyle.Width, p.Y.Tick.Length = 0, 0
	p.Y.Tick.Label = style(12, false, ink, draw.XRight)
	p.Y.Tick.Marker = plot.ConstantTicks(laneTicks())
	p.Add(d)
	p.Draw(draw.Crop(c, 0, 0, 14*pixel, -heading))
}

// seconds are the ticks of the time axis.
func (d drawing) seconds() (ticks []plot.Tick) {
	for t := time.Duration(0); t <= d.until; t += 5 * time.Second {
		ticks = append(ticks, plot.Tick{Value: t.Seconds(), Label: fmt.Sprintf("%.0f s", t.Seconds())})
	}
	return ticks
}

func laneTicks() (ticks []plot.Tick) {
	for i := range 2 {
		for lane := range replicas {
			ticks = append(ticks, plot.Tick{Value: row(panelTop(i) + 1 + lane), Label: laneName(lane)})
		}
	}
	return ticks
}

// Plot draws what is between the axes.
func (d drawing) Plot(c draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&c)
	pen := pen{Canvas: c, scenario: d.scenario, toX: x, toY: y}
	pen.ruler(d.seconds())
	kinds := []kind{clientGo, ours}
	for i, k := range kinds {
		pen.faults(panelTop(i), d.runs[k])
	}
	pen.events(d.runs[clientGo].events)
	for i, k := range kinds {
		pen.panel(panelTop(i), k, d.runs[k])
	}
}

// A pen draws one scenario.
type pen struct {
	draw.Canvas
	scenario
	toX, toY func(float64) vg.Length
}

// x is where a moment is, cut to what is shown. Chance moves it by some milliseconds from run to run; on this grid the
// picture stays the same.
func (p pen) x(at time.Duration) vg.Length {
	at = min(max(at, p.from), p.until).Round(50 * time.Millisecond)
	return p.toX(at.Seconds())
}

// bar fills a box from one moment to another, and from the top of one row to the bottom of another, less an inset.
func (p pen) bar(begin, end time.Duration, top, bottom int, inset vg.Length, fill color.Color) vg.Rectangle {
	r := vg.Rectangle{
		Min: vg.Point{X: p.x(begin), Y: p.toY(row(bottom)-0.5) + inset},
		Max: vg.Point{X: p.x(end), Y: p.toY(row(top)+0.5) - inset},
	}
	p.SetColor(fill)
	p.Fill(r.Path())
	return r
}

// ruler draws the lines that carry the time axis through both panels.
func (p pen) ruler(ticks []plot.Tick) {
	for i := range 2 {
		top := panelTop(i)
		for _, t := range ticks {
			x := p.toX(t.Value)
			p.StrokeLine2(draw.LineStyle{Color: hairline, Width: pixel}, x, p.toY(row(top+1)+0.5), x, p.toY(row(top+replicas)-0.5))
		}
	}
}

// faults shades the times in which not just one callback runs, and writes their lengths below the lanes.
func (p pen) faults(top int, r record) {
	for _, s := range r.faults(p.from, p.until) {
		hue, what := overlapping, "overlap "
		if s.callbacks == 0 {
			hue, what = leaderless, "gap "
		}
		p.bar(s.begin, s.end, top+1, top+replicas, 0, hue.wash)
		below := top + replicas + 1
		box := p.bar(s.begin, s.end, below, below, 1.5*pixel, hue.fill)
		if box.Size().X < 2*pixel { // too short to be seen
			box.Max.X = box.Min.X + 2*pixel
			p.Fill(box.Path())
		}
		p.caption(box, what+length(s.length()), hue)
	}
}

// caption writes into a box, or right of it if it is too narrow.
func (p pen) caption(box vg.Rectangle, label string, h hue) {
	s := style(11, true, h.inside, draw.XLeft)
	at := vg.Point{X: box.Min.X + 6*pixel, Y: (box.Min.Y + box.Max.Y) / 2}
	if slack*s.Width(label)+9*pixel > box.Size().X {
		s.Color = h.outside
		at.X = box.Max.X + 4*pixel
	}
	p.FillText(s, at, label)
}

// length is how long something took, without the milliseconds that chance adds.
func length(d time.Duration) string {
	if d < time.Second {
		return fmt.Sprintf("%d ms", d.Round(10*time.Millisecond).Milliseconds())
	}
	return fmt.Sprintf("%.1f s", d.Seconds())
}

// events draws a line through both panels for each event. It leaves the headings out.
func (p pen) events(all []event) {
	dashed := draw.LineStyle{Color: ink, Width: pixel, Dashes: []vg.Length{3 * pixel, 2 * pixel}}
	for _, e := range all {
		x, top := p.x(e.at), p.toY(row(0))
		p.StrokeLine2(dashed, x, top-rowHeight/2, x, top+rowHeight/2)
		for i := range 2 {
			p.StrokeLine2(dashed, x, p.toY(row(panelTop(i)+1)+0.5), x, p.toY(row(panelTop(i)+panelRows-1)-0.5))
		}
		p.FillText(style(12, false, ink, draw.XLeft), vg.Point{X: x + 5*pixel, Y: top + 1*pixel}, e.what)
	}
}

// panel draws the heading and the lanes of one elector.
func (p pen) panel(top int, k kind, r record) {
	p.heading(top, k)
	for _, l := range r.lives {
		y := p.toY(row(top + 1 + l.lane))
		p.StrokeLine2(draw.LineStyle{Color: alive, Width: 2 * pixel}, p.x(l.begin), y, p.x(l.end), y)
	}
	for _, t := range r.terms {
		lane := top + 1 + t.lane
		p.bar(t.begin, t.told, lane, lane, 2.5*pixel, works)
		p.bar(t.told, t.end, lane, lane, 2.5*pixel, stopping)
	}
}

// heading names the elector, and says what it does.
func (p pen) heading(top int, k kind) {
	at := vg.Point{X: p.Min.X, Y: p.toY(row(top))}
	bold := style(13, true, ink, draw.XLeft)
	p.FillText(bold, at, string(k))
	at.X += slack*bold.Width(string(k)) + 6*pixel
	p.FillText(style(12, false, faint, draw.XLeft), at, p.why[k])
}

// drawKey explains what the colours mean.
func drawKey(c draw.Canvas) {
	x, y := c.Min.X, (c.Min.Y+c.Max.Y)/2
	for _, k := range []struct {
		fill   color.Color
		height vg.Length
		label  string
	}{
		{works, 13 * pixel, "callback runs"},
		{stopping, 13 * pixel, "asked to stop, still runs"},
		{alive, 2 * pixel, "standing by"},
		{overlapping.fill, 13 * pixel, "overlap: two callbacks at once"},
		{leaderless.fill, 13 * pixel, "gap: nobody leads"},
	} {
		box := vg.Rectangle{Min: vg.Point{X: x, Y: y - k.height/2}, Max: vg.Point{X: x + 22*pixel, Y: y + k.height/2}}
		c.SetColor(k.fill)
		c.Fill(box.Path())
		s := style(12, false, ink, draw.XLeft)
		c.FillText(s, vg.Point{X: box.Max.X + 6*pixel, Y: y}, k.label)
		x = box.Max.X + 6*pixel + slack*s.Width(k.label) + 18*pixel
	}
}

// style is a text style; the size is in pixels.
func style(size float64, bold bool, c color.Color, align text.XAlignment) text.Style {
	f := font.Font{Typeface: "Liberation", Variant: "Sans", Size: vg.Length(size) * pixel}
	if bold {
		f.Weight = xfont.WeightBold
	}
	return text.Style{Color: c, Font: f, XAlign: align, YAlign: draw.YCenter, Handler: plot.DefaultTextHandler}
}
